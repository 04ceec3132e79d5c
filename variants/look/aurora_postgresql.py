"""What a reader is asked: its role, and for how long it has lacked something."""

LOOK = """
SELECT pg_is_in_recovery() AS is_replica, (
        SELECT replica_lag_in_msec / 1000 FROM aurora_replica_status()
        WHERE server_id = aurora_db_instance_identifier()
    ) AS lag_seconds
"""
