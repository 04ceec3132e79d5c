"""CELERY_* variables: the broker, the processes of a worker, and limits of a task."""

import re
import ssl
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from ..db.budget import CELERY_CONCURRENCY, CELERY_POOL_SIZE, CELERY_PROCESSES
from ..db.config.server import is_socket
from ..db.config.settings import ConnectionSettings
from ..db.config.url import ESCAPES, split_url
from .credentials import with_credentials

Seconds = Annotated[float, Field(ge=1, le=86_400)]
Number = Annotated[int, Field(ge=1, le=1000)]

# After its time limit a task has as long as the database may take to roll back (the
# last line of TIMEOUT_ORDER in db/config/timeouts.py); then its process is killed.
ROLLBACK_SECONDS = 10
# The longest pause before another try.
MAX_PAUSE_SECONDS = 60
# How often unacknowledged messages are restored, and how long the lock for it is held.
RESTORE_INTERVAL_SECONDS = 5
RESTORE_LOCK_SECONDS = 30
# Nothing may follow the number of the database.
BROKER = re.compile(r"rediss?://[^/?#\s]+(/\d*)?")


class WorkerSettings(ConnectionSettings):
    # A process runs one task at a time, on a pool of its own.
    celery_concurrency: Number = CELERY_CONCURRENCY
    celery_pool_size: Number = CELERY_POOL_SIZE

    # redis:// or, with TLS, rediss://
    celery_broker_url: SecretStr
    celery_broker_sslrootcert: FilePath | None = None

    # A task that takes longer is rolled back, and fails.
    celery_task_timeout_seconds: Seconds = 60
    # A task that cannot reach the database is repeated for so long; then it fails.
    celery_outage_seconds: Seconds = 3600
    # After SIGTERM: a task that takes longer is put back for another worker. With the
    # rollback it is below the 45 s of the platform.
    celery_shutdown_seconds: float = Field(default=20, ge=1, le=30)
    # A task that is not acknowledged by then is delivered to another worker.
    celery_visibility_timeout_seconds: Seconds = 150

    # Metrics for Prometheus, on all interfaces. 0: none.
    celery_metrics_port: int = Field(default=9808, ge=0, le=65535)

    def for_worker(self) -> Self:
        """The settings of a process that runs tasks."""
        size = self.celery_pool_size
        limits = {"database_pool_size": size, "database_max_overflow": 0}
        return self.model_copy(update=limits)

    @property
    def connections_of_workers(self) -> int:
        """At the peak of a rollout."""
        workers = CELERY_PROCESSES // CELERY_CONCURRENCY
        return workers * self.celery_concurrency * self.for_worker().connections

    @field_validator("celery_broker_url")
    @classmethod
    def _check_broker_url(cls, secret: SecretStr) -> SecretStr:
        """Celery's own message shows a part of the password."""
        text = secret.get_secret_value().strip()
        try:
            urlsplit(text)  # as Celery does: to it a bracket begins an address
            host = split_url(text, "")["host"]
        except ValueError:
            host = ""
        if not host or is_socket(host) or not BROKER.fullmatch(text):
            raise ValueError(
                "write redis://:password@host/0, or rediss:// for TLS;"
                f" {ESCAPES}, [ is %5B"
            )
        return SecretStr(text)

    @model_validator(mode="after")
    def _check_broker_encryption(self) -> Self:
        if self.celery_broker_sslrootcert and not self._is_encrypted:
            raise ValueError(
                "CELERY_BROKER_SSLROOTCERT is of no use without TLS:"
                " write rediss:// in CELERY_BROKER_URL."
            )
        return self

    @model_validator(mode="after")
    def _check_task_timeout(self) -> Self:
        """A task that still runs must not be delivered to another worker."""
        killed_after = self._killed_after_seconds
        if killed_after >= self.celery_visibility_timeout_seconds:
            raise ValueError(
                f"CELERY_TASK_TIMEOUT_SECONDS + {ROLLBACK_SECONDS} s ="
                f" {killed_after:g} s does not fit in"
                " CELERY_VISIBILITY_TIMEOUT_SECONDS ="
                f" {self.celery_visibility_timeout_seconds:g} s:"
                " lower the first or raise the second."
            )
        return self

    @property
    def _killed_after_seconds(self) -> float:
        return self.celery_task_timeout_seconds + ROLLBACK_SECONDS

    @property
    def max_countdown_seconds(self) -> float:
        """The worker holds the message: longer, and another one gets it too."""
        visible = self.celery_visibility_timeout_seconds
        return min(MAX_PAUSE_SECONDS, visible - self._killed_after_seconds)

    @property
    def _is_encrypted(self) -> bool:
        return self.celery_broker_url.get_secret_value().startswith("rediss:")

    def celery(self, package: str, schedule: dict[str, Any]) -> dict[str, Any]:
        """The configuration of Celery."""
        url = with_credentials(self.celery_broker_url.get_secret_value(), package)
        return {
            # For `broker_url` alone Celery would read CELERY_BROKER_URL by itself.
            **{"broker_url": url, "broker_read_url": url, "broker_write_url": url},
            "broker_use_ssl": self._ssl() if self._is_encrypted else None,
            # By default a worker gives up after 100 attempts.
            "broker_connection_max_retries": None,
            "broker_connection_retry_on_startup": True,
            # By default an error that Redis answers ends a worker: read only, out of
            # memory, without permission.
            "broker_channel_error_retry": True,
            "broker_transport_options": {
                # Services may share a Redis, and must not take each other's tasks.
                "global_keyprefix": f"{package}:",
                "visibility_timeout": self.celery_visibility_timeout_seconds,
                "unacked_restore_interval": RESTORE_INTERVAL_SECONDS,
                "unacked_restore_throttle": 1,
                "unacked_mutex_expire": RESTORE_LOCK_SECONDS,
                # By default each waits for ever, also where a task is published.
                "max_retries": 0,
                "socket_connect_timeout": 1,
                "socket_timeout": 2,
                "socket_keepalive": True,
                "health_check_interval": 10,
            },
            "task_publish_retry": False,
            # Pickle executes code in a message.
            "accept_content": ["json"],
            "task_serializer": "json",
            "task_ignore_result": True,
            # The broker keeps a message until its task has ended, and delivers it
            # again if the process was killed: as a retry, which is counted.
            "task_acks_late": True,
            "task_reject_on_worker_lost": True,
            "task_retry_on_worker_lost": True,
            "task_time_limit": self._killed_after_seconds,
            "worker_concurrency": self.celery_concurrency,
            "worker_consumer": f"{package}.worker.consumer:ReconnectingConsumer",
            # No other worker can run a fetched task, one in a pause included.
            "worker_prefetch_multiplier": 1,
            "worker_eta_task_limit": 20 * self.celery_concurrency,
            # One connection less that may hang. Metrics say what is going on.
            "worker_enable_remote_control": False,
            # Without a file: at its start every periodic task is due within `every`.
            "beat_scheduler": "celery.beat:Scheduler",
            "beat_schedule": schedule,
        }

    def _ssl(self) -> dict[str, Any]:
        return {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
            "ssl_ca_certs": self.celery_broker_sslrootcert,
        }
