{% set database = {"supabase": "postgres", "neon": "neondb"}.get(cloud, package_name) %}
{% set neon = "\\prompt 'Password of {0}: ' password\nALTER ROLE \"{0}\" PASSWORD :'password'; -- Neon takes no hash\n" %}
{% set ask = neon if cloud == "neon" else "" if has_token else "\\password {0}\n" %}
{% set others = '"' ~ roles.app ~ '"' ~ (', "' ~ roles.reader ~ '"' if with_replicas else "") %}
{% set has_iam = has_token and cloud.startswith("aws_") %}
{% set locked_out = "\n-- From PostgreSQL 16 on who creates a role stays a member of it, and through it of rds_iam:\n-- RDS then asks the administrator for a token, too. Allow rds-db:connect for that user before." if has_iam else "" %}
-- The roles of the service, and what each may do. Run it once before the first migration,
-- as an administrator on the server itself, and again after a change:
--     psql postgresql://admin@db.example.com/postgres --file=deploy/bootstrap.sql{{ locked_out }}
{% if not has_token %}
-- psql asks for the password of a role that is new; without a terminal psql reads the
-- standard input (`\password` twice).
{% endif %}
\set ON_ERROR_STOP on
\set database {{ database }}

SELECT format('CREATE DATABASE %I', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
\connect :database
BEGIN;

-- {{ roles.owner }} migrates: its tables are its own.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{ roles.owner }}') AS is_new \gset
\if :is_new
CREATE ROLE "{{ roles.owner }}" LOGIN;
{{ ask.format(roles.owner) }}\endif
-- The administrator of a cloud is no superuser, and needs these rights until the end.
GRANT "{{ roles.owner }}" TO CURRENT_USER;
SELECT format('GRANT CREATE ON DATABASE %I TO "{{ roles.owner }}"', :'database') \gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO "{{ roles.owner }}";

-- {{ roles.app }} serves: reads and writes rows, creates and drops nothing. What it has owned
-- so far is the owner's.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{ roles.app }}') AS is_new \gset
\if :is_new
CREATE ROLE "{{ roles.app }}" LOGIN;
{{ ask.format(roles.app) }}\endif
GRANT "{{ roles.app }}" TO CURRENT_USER;
REASSIGN OWNED BY "{{ roles.app }}" TO "{{ roles.owner }}";
REVOKE CREATE ON SCHEMA public FROM "{{ roles.app }}";
GRANT USAGE ON SCHEMA public TO "{{ roles.app }}";
SELECT format('GRANT USAGE ON SCHEMA %I TO "{{ roles.app }}"', nspname)
FROM pg_namespace WHERE nspowner = '{{ roles.owner }}'::regrole \gexec
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO "{{ roles.app }}"', oid::regclass)
FROM pg_class WHERE relowner = '{{ roles.owner }}'::regrole AND relkind IN ('r', 'p', 'v', 'm') \gexec
SELECT format('GRANT USAGE, SELECT, UPDATE ON SEQUENCE %s TO "{{ roles.app }}"', oid::regclass)
FROM pg_class WHERE relowner = '{{ roles.owner }}'::regrole AND relkind = 'S' \gexec
-- Those of later migrations.
ALTER DEFAULT PRIVILEGES FOR ROLE "{{ roles.owner }}" GRANT USAGE ON SCHEMAS TO "{{ roles.app }}";
ALTER DEFAULT PRIVILEGES FOR ROLE "{{ roles.owner }}"
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{{ roles.app }}";
ALTER DEFAULT PRIVILEGES FOR ROLE "{{ roles.owner }}"
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO "{{ roles.app }}";
{% if with_replicas %}

-- {{ roles.reader }} reads replicas, and writes nothing after one is promoted.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{ roles.reader }}') AS is_new \gset
\if :is_new
CREATE ROLE "{{ roles.reader }}" LOGIN;
{{ ask.format(roles.reader) }}\endif
SELECT 'REVOKE "{{ roles.app }}" FROM "{{ roles.reader }}"'
WHERE pg_has_role('{{ roles.reader }}', '{{ roles.app }}', 'MEMBER') \gexec
ALTER ROLE "{{ roles.reader }}" SET default_transaction_read_only = on;
REVOKE CREATE ON SCHEMA public FROM "{{ roles.reader }}";
GRANT USAGE ON SCHEMA public TO "{{ roles.reader }}";
SELECT format('GRANT USAGE ON SCHEMA %I TO "{{ roles.reader }}"', nspname)
FROM pg_namespace WHERE nspowner = '{{ roles.owner }}'::regrole \gexec
SELECT format('GRANT SELECT ON %s TO "{{ roles.reader }}"', oid::regclass)
FROM pg_class WHERE relowner = '{{ roles.owner }}'::regrole AND relkind IN ('r', 'p', 'v', 'm') \gexec
ALTER DEFAULT PRIVILEGES FOR ROLE "{{ roles.owner }}" GRANT USAGE ON SCHEMAS TO "{{ roles.reader }}";
ALTER DEFAULT PRIVILEGES FOR ROLE "{{ roles.owner }}" GRANT SELECT ON TABLES TO "{{ roles.reader }}";
{% endif %}
{% if has_iam %}

GRANT rds_iam TO "{{ roles.owner }}", {{ others }};
{% endif %}
{% if has_role_limits %}

-- {{ server.poolers[pooler].name }} does not let a session set its timeouts. These are the defaults of
-- DATABASE_LOCK_TIMEOUT_SECONDS and so on: change both or none. An open session keeps its own.
SELECT format('ALTER ROLE %I SET %s = %L', role, name, value)
FROM unnest('{{ "{" ~ others ~ "}" }}'::text[]) AS role, (VALUES
    ('lock_timeout', '2s'),
    ('statement_timeout', '5s'),
    ('idle_in_transaction_session_timeout', '10s'),
    ('timezone', 'UTC')
) AS limits (name, value) \gexec
{% endif %}

REVOKE "{{ roles.owner }}", "{{ roles.app }}" FROM CURRENT_USER;
COMMIT;
