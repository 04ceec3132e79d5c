-- The roles of the service, and what each may do. Run it once before the first migration,
-- as an administrator on the server itself, and again after a change:
--     psql postgresql://admin@db.example.com/postgres --file=deploy/bootstrap.sql
-- psql asks for the password of a role that is new; without a terminal psql reads the
-- standard input (`\password` twice).
\set ON_ERROR_STOP on
\set database largest

SELECT format('CREATE DATABASE %I', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
\connect :database
BEGIN;

-- largest_owner migrates: its tables are its own.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'largest_owner') AS is_new \gset
\if :is_new
CREATE ROLE "largest_owner" LOGIN;
\password largest_owner
\endif
-- The administrator of a cloud is no superuser, and needs these rights until the end.
GRANT "largest_owner" TO CURRENT_USER;
SELECT format('GRANT CREATE ON DATABASE %I TO "largest_owner"', :'database') \gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO "largest_owner";

-- largest serves: reads and writes rows, creates and drops nothing. What it has owned
-- so far is the owner's.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'largest') AS is_new \gset
\if :is_new
CREATE ROLE "largest" LOGIN;
\password largest
\endif
GRANT "largest" TO CURRENT_USER;
REASSIGN OWNED BY "largest" TO "largest_owner";
REVOKE CREATE ON SCHEMA public FROM "largest";
GRANT USAGE ON SCHEMA public TO "largest";
SELECT format('GRANT USAGE ON SCHEMA %I TO "largest"', nspname)
FROM pg_namespace WHERE nspowner = 'largest_owner'::regrole \gexec
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO "largest"', oid::regclass)
FROM pg_class WHERE relowner = 'largest_owner'::regrole AND relkind IN ('r', 'p', 'v', 'm') \gexec
SELECT format('GRANT USAGE, SELECT, UPDATE ON SEQUENCE %s TO "largest"', oid::regclass)
FROM pg_class WHERE relowner = 'largest_owner'::regrole AND relkind = 'S' \gexec
-- Those of later migrations.
ALTER DEFAULT PRIVILEGES FOR ROLE "largest_owner" GRANT USAGE ON SCHEMAS TO "largest";
ALTER DEFAULT PRIVILEGES FOR ROLE "largest_owner"
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "largest";
ALTER DEFAULT PRIVILEGES FOR ROLE "largest_owner"
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO "largest";

-- largest_reader reads replicas, and writes nothing after one is promoted.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'largest_reader') AS is_new \gset
\if :is_new
CREATE ROLE "largest_reader" LOGIN;
\password largest_reader
\endif
SELECT 'REVOKE "largest" FROM "largest_reader"'
WHERE pg_has_role('largest_reader', 'largest', 'MEMBER') \gexec
ALTER ROLE "largest_reader" SET default_transaction_read_only = on;
REVOKE CREATE ON SCHEMA public FROM "largest_reader";
GRANT USAGE ON SCHEMA public TO "largest_reader";
SELECT format('GRANT USAGE ON SCHEMA %I TO "largest_reader"', nspname)
FROM pg_namespace WHERE nspowner = 'largest_owner'::regrole \gexec
SELECT format('GRANT SELECT ON %s TO "largest_reader"', oid::regclass)
FROM pg_class WHERE relowner = 'largest_owner'::regrole AND relkind IN ('r', 'p', 'v', 'm') \gexec
ALTER DEFAULT PRIVILEGES FOR ROLE "largest_owner" GRANT USAGE ON SCHEMAS TO "largest_reader";
ALTER DEFAULT PRIVILEGES FOR ROLE "largest_owner" GRANT SELECT ON TABLES TO "largest_reader";

-- PgBouncer does not let a session set its timeouts. These are the defaults of
-- DATABASE_LOCK_TIMEOUT_SECONDS and so on: change both or none. An open session keeps its own.
SELECT format('ALTER ROLE %I SET %s = %L', role, name, value)
FROM unnest('{"largest", "largest_reader"}'::text[]) AS role, (VALUES
    ('lock_timeout', '2s'),
    ('statement_timeout', '5s'),
    ('idle_in_transaction_session_timeout', '10s'),
    ('timezone', 'UTC')
) AS limits (name, value) \gexec

REVOKE "largest_owner", "largest" FROM CURRENT_USER;
COMMIT;
