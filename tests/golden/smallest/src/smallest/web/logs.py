"""Logs: one JSON object a line, with the id of the request that caused it."""

import logging.config
import sys
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

from .middleware import RequestIdFilter

PACKAGE = __name__.partition(".")[0]


def logging_config(level: str) -> dict[str, Any]:
    """For `logging.config`: everything to stderr; plain text on a terminal."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": RequestIdFilter}},
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
                "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
            },
            "text": {"format": "%(asctime)s %(levelname)-7s %(name)s  %(message)s"},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "text" if sys.stderr.isatty() else "json",
                "filters": ["request_id"],
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # SQLAlchemy logs each connection of the pool under the module of its class.
            f"{PACKAGE}.db.engine.pool": {"level": "WARNING"},
            # The servers log through the root; RequestLog writes the access log.
            "uvicorn": {"handlers": [], "propagate": True},
            "uvicorn.error": {"handlers": [], "propagate": True},
            "uvicorn.access": {"handlers": [], "propagate": False},
        },
    }


def configure_logging(level: str) -> None:
    logging.config.dictConfig(logging_config(level))
