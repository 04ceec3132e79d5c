"""Query of the doctor: what the user may do with the tables of the database."""

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
