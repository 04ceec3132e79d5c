"""What becomes of reads where there are replicas, in figures for Prometheus."""

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from .replicas import Replicas

READS = Counter("database_reads_total", "Read sessions, by where they went.", ["pool"])
FALLBACKS = Counter(
    "database_replica_fallbacks_total", "Reads of the primary instead.", ["reason"]
)
BANS = Counter(
    "database_replica_bans_total", "Times not used for 10 s.", ["pool", "reason"]
)
LAG = Gauge(
    "database_replica_lag_seconds",
    "Behind the primary, as the worker sees it that sees most.",
    ["pool"],
    multiprocess_mode="livemax",
)
WAIT = Histogram(
    "database_replica_wait_seconds",
    "Until a replica had what the client has seen.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
)


def show(replicas: "Replicas") -> None:
    """Take over what was counted: a figure that workers share is slow to write."""
    for name, number in [*replicas.reads.items()]:
        if number > 0:  # else it was taken over, and has moved since: counted below 0
            READS.labels(name).inc(number)
            del replicas.reads[name]
    for reason, number in replicas.fallbacks.items():
        FALLBACKS.labels(reason).inc(number)
    for seconds in replicas.waits:
        WAIT.observe(seconds)
    for replica in replicas:
        LAG.labels(replica.name).set(replica.lag_seconds)
        for reason, number in replica.bans.items():
            BANS.labels(replica.name, reason).inc(number)
        replica.bans.clear()
    replicas.fallbacks.clear()
    replicas.waits.clear()
