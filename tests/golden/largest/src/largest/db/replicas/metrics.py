"""Metrics of replicas: where reads went, fallbacks, bans, lag, waits."""

from collections import Counter as Counts
from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

READS = Counter("database_reads_total", "Read sessions, by pool.", ["pool"])
FALLBACKS = Counter(
    "database_replica_fallbacks_total", "Reads from the primary instead.", ["reason"]
)
BANS = Counter("database_replica_bans_total", "Bans for 10 s.", ["pool", "reason"])
LAG = Gauge(
    "database_replica_lag_seconds",
    "Replication lag, as the process sees it that sees most.",
    ["pool"],
    multiprocess_mode="livemax",
)
WAIT = Histogram(
    "database_replica_wait_seconds",
    "Wait of a read for the position that its client has seen.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
)


def export(
    reads: Counts[str],
    fallbacks: Counts[str],
    waits: list[float],
    replicas: Iterable[Any],
) -> None:
    """Take over what was counted: a value that processes share is slow to write."""
    for name, number in [*reads.items()]:
        if number > 0:  # below 0: a session has moved after its count was taken over
            READS.labels(name).inc(number)
            del reads[name]
    for reason, number in fallbacks.items():
        FALLBACKS.labels(reason).inc(number)
    for seconds in waits:
        WAIT.observe(seconds)
    for replica in replicas:
        LAG.labels(replica.name).set(replica.lag_seconds)
        for reason, number in replica.bans.items():
            BANS.labels(replica.name, reason).inc(number)
        replica.bans.clear()
    fallbacks.clear()
    waits.clear()
