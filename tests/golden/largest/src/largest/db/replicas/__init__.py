"""Read replicas: routing, health probes, replication lag, failover."""
