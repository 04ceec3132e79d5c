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
-- MySQL has each user first as a role, which is a locked user: `validate_password` rejects a
-- new user without a password, and no role. To MariaDB that line is a comment.
-- Each `schema` of a model is a database of its own: repeat the GRANTs for it.
-- A user that could do more before still can: the line `role` of `make doctor` says so.
CREATE DATABASE IF NOT EXISTS `{{ package_name }}`;

-- {{ roles.owner }} migrates: creates and drops tables.
/*!80000 CREATE ROLE IF NOT EXISTS `{{ roles.owner }}` */;
CREATE USER IF NOT EXISTS `{{ roles.owner }}` ACCOUNT LOCK;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES,
    CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT, TRIGGER,
    CREATE TEMPORARY TABLES, LOCK TABLES
    ON {{ database }} TO `{{ roles.owner }}`;

-- {{ roles.app }} serves: reads and writes rows, creates and drops nothing.
/*!80000 CREATE ROLE IF NOT EXISTS `{{ roles.app }}` */;
CREATE USER IF NOT EXISTS `{{ roles.app }}` ACCOUNT LOCK;
GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON {{ database }} TO `{{ roles.app }}`;
{% if with_replicas %}

-- {{ roles.reader }} reads replicas, and writes nothing after one is promoted.
/*!80000 CREATE ROLE IF NOT EXISTS `{{ roles.reader }}` */;
CREATE USER IF NOT EXISTS `{{ roles.reader }}` ACCOUNT LOCK;
GRANT SELECT ON {{ database }} TO `{{ roles.reader }}`;
{% endif %}
