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


class DatabaseSettings(ReplicaSettings, PoolerSettings, ConnectionSettings):
    """All DATABASE_* variables, and what the add-ons do."""

    hooks: ClassVar[Sequence[Hook]] = [connect_to_primary, watch_primary]
    checks: ClassVar[Mapping[str, Check]] = {**POOLER_CHECKS, **REPLICA_CHECKS}
    open_router = staticmethod(open_replica_router)
