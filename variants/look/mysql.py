"""What a replica is asked: its role, and how far it is."""

# MariaDB executes what is in /*M! */, MySQL what is in /*!80000 */.
LOOK = """
SELECT @@read_only OR @@innodb_read_only AS is_replica, NULL AS lag_seconds,
    /*M! @@GLOBAL.gtid_slave_pos */ /*!80000 @@GLOBAL.gtid_executed */ AS position
"""
