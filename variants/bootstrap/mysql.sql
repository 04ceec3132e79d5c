{% set database = "`" ~ package_name | replace("_", "\\_") ~ "`.*" %}
-- The users of the service, and what each may do. Run it once before the first migration,
-- as an administrator on the server itself, and again after a change:
--     mysql --host=db.example.com --user=admin --password < deploy/bootstrap.sql
{% if has_token %}
-- A new user is locked: let each log in by a token, as the README says, and ACCOUNT UNLOCK.
{% else %}
-- A new user is locked until it has a password. The client keeps this out of its history:
--     ALTER USER `{{ roles.owner }}` IDENTIFIED BY '...' ACCOUNT UNLOCK;
{% endif %}
-- Each `schema` of a model is a database of its own: repeat the GRANTs for it.
-- A user that could do more before still can: the line `role` of `make doctor` says so.
CREATE DATABASE IF NOT EXISTS `{{ package_name }}`;

-- {{ roles.owner }} migrates: creates and drops tables.
CREATE USER IF NOT EXISTS `{{ roles.owner }}` ACCOUNT LOCK;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES,
    CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT, TRIGGER,
    CREATE TEMPORARY TABLES, LOCK TABLES
    ON {{ database }} TO `{{ roles.owner }}`;

-- {{ roles.app }} serves: reads and writes rows, creates and drops nothing.
CREATE USER IF NOT EXISTS `{{ roles.app }}` ACCOUNT LOCK;
GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON {{ database }} TO `{{ roles.app }}`;
{% if with_replicas %}

-- {{ roles.reader }} reads replicas, and writes nothing after one is promoted.
CREATE USER IF NOT EXISTS `{{ roles.reader }}` ACCOUNT LOCK;
GRANT SELECT ON {{ database }} TO `{{ roles.reader }}`;
{% endif %}
