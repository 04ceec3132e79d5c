"""The add-ons of this folder, generated from the answers by `make update`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from .config.settings import ConnectionSettings
from .doctor.report import Check
from .engine.create import Hook
from .pooler.checks import CHECKS as POOLER_CHECKS
from .pooler.settings import PoolerSettings
from .replicas.checks import CHECKS as REPLICA_CHECKS
from .replicas.failover import watch_primary
from .replicas.hosts import connect_to_primary
from .replicas.open import open_replica_router
from .replicas.settings import ReplicaSettings
from .tracing.engine import trace_engine
from .tracing.replicas import trace_router
from .tracing.validation import trace_validation


class DatabaseSettings(ReplicaSettings, PoolerSettings, ConnectionSettings):
    """All DATABASE_* variables, and what the add-ons do."""

    hooks: ClassVar[Sequence[Hook]] = [
        trace_engine,
        connect_to_primary,
        watch_primary,
        trace_validation,
    ]
    checks: ClassVar[Mapping[str, Check]] = {**POOLER_CHECKS, **REPLICA_CHECKS}
    open_router = staticmethod(trace_router(open_replica_router))
