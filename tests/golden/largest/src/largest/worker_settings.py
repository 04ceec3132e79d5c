"""CELERY_* variables: where the broker is, and how long a task may take."""

import re
import ssl
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from .db.fleet import TaskSettings

Seconds = Annotated[float, Field(ge=1, le=86_400)]

# From the end of its time a task has as long as the database may take to roll back,
# see db/settings.py; then its process is killed.
ROLLBACK_SECONDS = 10
# Before another try.
LONGEST_PAUSE_SECONDS = 60
# How often somebody looks for tasks whose worker is gone, and for how long nobody else
# does when it has gone as well.
RESTORE_SECONDS = 5
RESTORING_SECONDS = 30
# With nothing behind the number of the database.
BROKER = re.compile(r"rediss?://[^/?#\s]+(/\d*)?")


class WorkerSettings(TaskSettings):
    # redis:// or, with TLS, rediss://
    celery_broker_url: SecretStr
    celery_broker_sslrootcert: FilePath | None = None

    # What is not done by then is rolled back, and failed.
    celery_task_timeout_seconds: Seconds = 60
    # On SIGTERM: what is not done by then is another worker's. Below the 45 s of the
    # platform, with what a rollback takes.
    celery_shutdown_seconds: float = Field(default=20, ge=1, le=30)
    # When nobody has said that a task is done, another worker gets it.
    celery_visibility_timeout_seconds: Seconds = 150

    # Figures for Prometheus, on all interfaces. 0: none.
    celery_metrics_port: int = Field(default=9808, ge=0, le=65535)

    @field_validator("celery_broker_url")
    @classmethod
    def _check_url(cls, secret: SecretStr) -> SecretStr:
        """As Celery takes it apart, which else shows a part of the password."""
        text = secret.get_secret_value()
        try:
            url = urlsplit(text)
            has_place = bool(url.hostname) and url.port != 0
        except ValueError:
            has_place = False
        if not has_place or not BROKER.fullmatch(text):
            raise ValueError(
                "write redis://:password@host/0, or rediss:// for TLS;"
                " in the password, a / is %2F, a ? is %3F, a # is %23"
            )
        return secret

    @model_validator(mode="after")
    def _check_encryption(self) -> Self:
        if self.celery_broker_sslrootcert and not self._is_encrypted:
            raise ValueError(
                "CELERY_BROKER_SSLROOTCERT is of no use without TLS:"
                " write rediss:// in CELERY_BROKER_URL."
            )
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """A task that is still at work must not be given to another worker."""
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
    def longest_pause_seconds(self) -> float:
        """A worker has the message meanwhile: no other one shall get it as well."""
        visible = self.celery_visibility_timeout_seconds
        return min(LONGEST_PAUSE_SECONDS, visible - self._killed_after_seconds)

    @property
    def _is_encrypted(self) -> bool:
        return self.celery_broker_url.get_secret_value().startswith("rediss:")

    def celery(self, package: str, schedule: dict[str, Any]) -> dict[str, Any]:
        """What Celery is told."""
        return {
            "broker_url": self.celery_broker_url.get_secret_value(),
            "broker_use_ssl": self._ssl() if self._is_encrypted else None,
            # By default a worker gives up after 100 attempts.
            "broker_connection_max_retries": None,
            "broker_connection_retry_on_startup": True,
            "broker_transport_options": {
                # Services may share a Redis: none shall take the tasks of another one.
                "global_keyprefix": f"{package}:",
                "visibility_timeout": self.celery_visibility_timeout_seconds,
                "unacked_restore_interval": RESTORE_SECONDS,
                "unacked_restore_throttle": 1,
                "unacked_mutex_expire": RESTORING_SECONDS,
                # By default each waits for ever, publishers included.
                "max_retries": 0,
                "socket_connect_timeout": 1,
                "socket_timeout": 2,
                "socket_keepalive": True,
                "health_check_interval": 10,
            },
            "task_publish_retry": False,
            # Pickle would run what a message says.
            "accept_content": ["json"],
            "task_serializer": "json",
            "task_ignore_result": True,
            # A task is on record with the broker until it is done, and comes again if
            # its process was killed: as a retry, which is counted, or else as it was.
            "task_acks_late": True,
            "task_reject_on_worker_lost": True,
            "task_retry_on_worker_lost": True,
            "task_time_limit": self._killed_after_seconds,
            "worker_concurrency": self.celery_concurrency,
            "worker_consumer": f"{package}.acknowledgement:Consumer",
            # What one worker has taken no other one can do, those in a pause included.
            "worker_prefetch_multiplier": 1,
            "worker_eta_task_limit": 20 * self.celery_concurrency,
            # One connection less that may fall silent. Figures say what is going on.
            "worker_enable_remote_control": False,
            # It keeps no file: what is due was due in the last `every` seconds.
            "beat_scheduler": "celery.beat:Scheduler",
            "beat_schedule": schedule,
        }

    def _ssl(self) -> dict[str, Any]:
        return {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
            "ssl_ca_certs": self.celery_broker_sslrootcert,
        }
