-- The roles of the service, and what each may do. Run it once before the first migration,
-- as an administrator on the server itself, and again after a change:
--     psql postgresql://admin@db.example.com/postgres --file=deploy/bootstrap.sql
{% if cloud == "neon" %}
-- It asks for the password of a role that is new.
{% elif not has_token %}
-- It asks for the password of a role that is new, and sends the hash of it only. Without a
-- terminal it reads each password twice from the standard input.
{% endif %}
\set ON_ERROR_STOP on
\set database {{ {"supabase": "postgres", "neon": "neondb"}.get(cloud, package_name) }}

SELECT format('CREATE DATABASE %I', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
\connect :database
BEGIN;
{% set purposes = {
  "owner": "migrates: its tables are its own.",
  "app": "serves: reads and writes rows, creates and drops nothing.",
  "reader": "reads replicas, and writes nothing after one is promoted.",
} %}
{% for key, purpose in purposes.items() if key != "reader" or with_replicas %}
{% set role = roles[key] %}

-- {{ role }} {{ purpose }}
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{ role }}') AS is_new \gset
\if :is_new
CREATE ROLE {{ role }} LOGIN;
{% if cloud == "neon" %}
\prompt 'Password of {{ role }}: ' password
ALTER ROLE {{ role }} PASSWORD :'password'; -- Neon rejects a hash
{% elif not has_token %}
\password {{ role }}
{% endif %}
\endif
{% endfor %}
{% set others = roles.app ~ (", " ~ roles.reader if with_replicas else "") %}
{% if has_token and cloud.startswith("aws_") %}

GRANT rds_iam TO {{ roles.owner }}, {{ others }};
{% endif %}

-- The administrator of a cloud is no superuser, and needs this until the end.
GRANT {{ roles.owner }}, {{ roles.app }} TO CURRENT_USER;
{% if with_replicas %}
SELECT 'REVOKE {{ roles.app }} FROM {{ roles.reader }}'
WHERE pg_has_role('{{ roles.reader }}', '{{ roles.app }}', 'MEMBER') \gexec
ALTER ROLE {{ roles.reader }} SET default_transaction_read_only = on;
{% endif %}
SELECT format('GRANT CREATE ON DATABASE %I TO {{ roles.owner }}', :'database') \gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC, {{ others }};
GRANT USAGE, CREATE ON SCHEMA public TO {{ roles.owner }};
GRANT USAGE ON SCHEMA public TO {{ others }};

-- Schemas and tables that are there, also those that the service has owned so far.
REASSIGN OWNED BY {{ roles.app }} TO {{ roles.owner }};
SELECT format('GRANT USAGE ON SCHEMA %I TO {{ others }}', nspname)
FROM pg_namespace WHERE nspowner = '{{ roles.owner }}'::regrole \gexec
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO {{ roles.app }}', oid::regclass)
FROM pg_class WHERE relowner = '{{ roles.owner }}'::regrole AND relkind IN ('r', 'p', 'v', 'm') \gexec
SELECT format('GRANT USAGE, SELECT, UPDATE ON SEQUENCE %s TO {{ roles.app }}', oid::regclass)
FROM pg_class WHERE relowner = '{{ roles.owner }}'::regrole AND relkind = 'S' \gexec
{% if with_replicas %}
SELECT format('GRANT SELECT ON %s TO {{ roles.reader }}', oid::regclass)
FROM pg_class WHERE relowner = '{{ roles.owner }}'::regrole AND relkind IN ('r', 'p', 'v', 'm') \gexec
{% endif %}

-- Those of later migrations.
ALTER DEFAULT PRIVILEGES FOR ROLE {{ roles.owner }} GRANT USAGE ON SCHEMAS TO {{ others }};
ALTER DEFAULT PRIVILEGES FOR ROLE {{ roles.owner }}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {{ roles.app }};
ALTER DEFAULT PRIVILEGES FOR ROLE {{ roles.owner }}
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {{ roles.app }};
{% if with_replicas %}
ALTER DEFAULT PRIVILEGES FOR ROLE {{ roles.owner }} GRANT SELECT ON TABLES TO {{ roles.reader }};
{% endif %}
{% if has_role_limits %}

-- {{ server.poolers[pooler].name }} does not let a session set its timeouts. These are the defaults of
-- DATABASE_LOCK_TIMEOUT_SECONDS and so on: change both or none. An open session keeps its own.
{% for role in others.split(", ") %}
ALTER ROLE {{ role }} SET lock_timeout = '2s';
ALTER ROLE {{ role }} SET statement_timeout = '5s';
ALTER ROLE {{ role }} SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE {{ role }} SET timezone = 'UTC';
{% endfor %}
{% endif %}

REVOKE {{ roles.owner }}, {{ roles.app }} FROM CURRENT_USER;
COMMIT;
