"""Queries of the doctor: the server, its limit of connections, the rights of a role."""

# The server, its session, its time; the lowest limit of connections, with the name of
# that limit.
SERVER_ID_QUERY = "SELECT CONCAT(@@hostname, ':', @@port)"
SESSION_ID_QUERY = "SELECT CONNECTION_ID()"
SERVER_TIME_QUERY = "SELECT UNIX_TIMESTAMP(SYSDATE(6))"
CONNECTION_LIMIT_QUERY = """
SELECT @@max_connections AS most, 'max_connections' AS name
UNION SELECT @@max_user_connections, 'max_user_connections' FROM DUAL
    WHERE @@max_user_connections > 0
ORDER BY most LIMIT 1
"""

ROLE_QUERY = """
SELECT CURRENT_USER() AS name,
    COALESCE(MAX(privilege_type IN ('CREATE', 'ALTER', 'DROP')), 0) AS creates,
    COALESCE(MAX(privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'DROP')), 0) AS writes
FROM (
    SELECT grantee, privilege_type FROM information_schema.user_privileges
    UNION ALL
    SELECT grantee, privilege_type FROM information_schema.schema_privileges
    WHERE DATABASE() LIKE table_schema
) AS privileges
WHERE REPLACE(grantee, '''', '') = CURRENT_USER()
"""
