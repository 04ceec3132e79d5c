"""Query of the doctor: what the user may do with the tables of the database."""

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
