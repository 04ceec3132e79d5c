"""What a reader is asked: its role, and for how long it has lacked something."""

LOOK = """
SELECT @@innodb_read_only AS is_replica, (
        SELECT replica_lag_in_milliseconds / 1000
        FROM information_schema.replica_host_status WHERE server_id = @@aurora_server_id
    ) AS lag_seconds
"""
