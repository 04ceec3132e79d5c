"""What a worker does when it could not tell the broker that a task has ended."""

from functools import partial
from typing import Any

from celery.worker import consumer  # type: ignore[import-untyped]

from .db.environment import require

require(consumer.Consumer, "call_soon_ack")


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """It connects anew.

    Celery says "Couldn't ack", and takes the task for one that is still at work: when
    it has as many of them as processes, it asks for no other task, for ever.
    """

    def call_soon_ack(self, tell: Any, *args: Any, **kwargs: Any) -> Any:
        return super().call_soon_ack(partial(_tell, tell), *args, **kwargs)


def _tell(tell: Any, *args: Any, **kwargs: Any) -> None:
    tell(*args, **kwargs)
    if not tell.__self__.acknowledged:
        raise ConnectionResetError("The end of a task was not told.")
