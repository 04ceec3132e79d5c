-- The role of the service with its timeouts, since PgBouncer does not
-- let a session set them. Run it once on the server itself, as an administrator:
--     psql postgresql://admin@db.example.com/postgres \
--         --set=password=... --file=deploy/bootstrap.sql
-- and again after a change. Open sessions keep their old timeouts.
\set ON_ERROR_STOP on

SELECT 'CREATE ROLE largest LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'largest') \gexec
ALTER ROLE largest PASSWORD :'password';

-- The defaults of DATABASE_LOCK_TIMEOUT_SECONDS and so on: change both or none.
ALTER ROLE largest SET lock_timeout = '2s';
ALTER ROLE largest SET statement_timeout = '5s';
ALTER ROLE largest SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE largest SET timezone = 'UTC';

-- The role for DATABASE_REPLICA_URLS: the same rights, in read-only transactions.
SELECT 'CREATE ROLE largest_reader LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'largest_reader') \gexec
GRANT largest TO largest_reader;
\if :{?password}
ALTER ROLE largest_reader PASSWORD :'password';
\endif
ALTER ROLE largest_reader SET default_transaction_read_only = on;
ALTER ROLE largest_reader SET lock_timeout = '2s';
ALTER ROLE largest_reader SET statement_timeout = '5s';
ALTER ROLE largest_reader SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE largest_reader SET timezone = 'UTC';
