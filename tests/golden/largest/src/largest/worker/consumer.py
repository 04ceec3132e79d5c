"""Celery consumer that reconnects when an acknowledgement fails."""

from functools import partial
from typing import Any

from celery.worker import consumer  # type: ignore[import-untyped]

from ..db.config.environment import require

require(consumer.Consumer, "call_soon_ack")


class ReconnectingConsumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's own logs "Couldn't ack", and counts the task as one that still runs.

    With as many of them as processes it asks for no other task any more.
    """

    def call_soon_ack(self, ack: Any, *args: Any, **kwargs: Any) -> Any:
        return super().call_soon_ack(partial(_acknowledge, ack), *args, **kwargs)


def _acknowledge(ack: Any, *args: Any, **kwargs: Any) -> None:
    ack(*args, **kwargs)
    if not ack.__self__.acknowledged:
        raise ConnectionResetError("The acknowledgement of a task has failed.")
