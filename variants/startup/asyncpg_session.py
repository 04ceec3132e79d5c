"""What the pooler is told as a session starts: who asks, and nothing else."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import DatabaseSettings


def startup_args(_: "DatabaseSettings") -> dict[str, Any]:
    # A pooler refuses a session that brings limits: deploy/bootstrap.sql has them.
    return {"server_settings": {"application_name": __name__.partition(".")[0]}}
