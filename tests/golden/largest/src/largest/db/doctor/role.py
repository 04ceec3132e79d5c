"""Queries of the doctor: the server, its limit of connections, the rights of a role."""

# The server, its session, its time; the lowest limit of connections for this role,
# which is no superuser, with the name of that limit.
SERVER_ID_QUERY = "SELECT pg_postmaster_start_time()"
SESSION_ID_QUERY = "SELECT pg_backend_pid()"
SERVER_TIME_QUERY = "SELECT extract(epoch FROM clock_timestamp())"
CONNECTION_LIMIT_QUERY = """
SELECT sum(setting::int * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END) AS most,
    'max_connections' AS name FROM pg_settings
    WHERE name = 'max_connections' OR name LIKE '%%reserved_connections'
UNION SELECT rolconnlimit, 'the role''s CONNECTION LIMIT' FROM pg_roles
    WHERE rolname = current_user AND rolconnlimit >= 0
UNION SELECT datconnlimit, 'the database''s CONNECTION LIMIT' FROM pg_database
    WHERE datname = current_database() AND datconnlimit >= 0
ORDER BY most LIMIT 1
"""

ROLE_QUERY = """
WITH tables AS (
    SELECT oid, relowner FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace =
        (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
)
SELECT current_user AS name,
    EXISTS (SELECT FROM tables WHERE pg_has_role(relowner, 'USAGE'))
    OR coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates,
    EXISTS (SELECT FROM tables WHERE has_table_privilege(oid, 'INSERT, UPDATE, DELETE'))
    AS writes
"""
