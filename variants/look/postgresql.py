"""What a replica is asked: its role, and how far it is."""

LOOK = """
SELECT pg_is_in_recovery() AS is_replica, NULL AS lag_seconds,
    (pg_last_wal_replay_lsn() - '0/0')::bigint AS position
"""
