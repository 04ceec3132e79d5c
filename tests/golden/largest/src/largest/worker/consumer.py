"""Celery consumer that outlasts a broker which is away, or refuses its commands."""

import logging
import warnings
from functools import partial
from time import monotonic, sleep
from typing import Any

from celery.exceptions import (  # type: ignore[import-untyped]
    CPendingDeprecationWarning,
)
from celery.worker import consumer, state  # type: ignore[import-untyped]
from kombu.transport import redis, virtual

from ..db.config.environment import require
from .metrics import facts

require(consumer.Consumer, "call_soon_ack", "on_connection_error_after_connected")
require(redis.Channel, "QoS")

REFUSALS = (*redis.Transport.connection_errors, *redis.Transport.channel_errors)
# Pauses of 1, 2, 4, ... s; a connection that has lasted for longer begins anew.
MAX_PAUSE_SECONDS = 15

logger = logging.getLogger(__name__)


class ReconnectingConsumer(consumer.Consumer):  # type: ignore[misc]
    _pause = 0
    _connected_at = float("-inf")

    def call_soon_ack(self, ack: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery's own logs "Couldn't ack", and counts the task as one that still runs.

        With as many of them as processes it asks for no other task any more.
        """
        return super().call_soon_ack(partial(_acknowledge, ack), *args, **kwargs)

    def on_connection_error_before_connected(self, error: Exception) -> None:
        self._wait(error)

    def on_connection_error_after_connected(self, error: Exception) -> None:
        with warnings.catch_warnings():  # Celery announces a change of its defaults
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(error)
        self._wait(error)

    def _wait(self, error: Exception) -> None:
        """Celery would connect again five times a second."""
        has_lasted = monotonic() - self._connected_at > MAX_PAUSE_SECONDS
        self._pause = 1 if has_lasted else min(2 * self._pause, MAX_PAUSE_SECONDS)
        text = "broker is lost, or refuses to work: connecting again in %d s: %s"
        logger.warning(text, self._pause, error)
        until = monotonic() + self._pause
        while monotonic() < until:
            state.maybe_shutdown()
            sleep(0.1)
        self._connected_at = monotonic()


class RecordingQoS(redis.QoS):
    """Of a message that was taken off its queue the broker keeps a record until the
    end of its task. A broker without memory rejects the record: the task runs all the
    same, or it would be lost.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]
        except REFUSALS as error:
            name, task_id = (message.headers.get(each) for each in ("task", "id"))
            text = (
                "broker keeps no record of task %s, which is lost with this worker: %s"
            )
            logger.warning(text, name, error, extra=facts(name, task_id))
            virtual.QoS.append(self, message, delivery_tag)  # type: ignore[no-untyped-call]


redis.Channel.QoS = RecordingQoS


def _acknowledge(ack: Any, *args: Any, **kwargs: Any) -> None:
    ack(*args, **kwargs)
    if not ack.__self__.acknowledged:
        raise ConnectionResetError("The acknowledgement of a task has failed.")
