"""Logs: one JSON object a line, with the id of the request that caused it."""

import json
import logging.config
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from . import LOG_LEVEL, LOG_STREAM

PACKAGE = __name__.partition(".")[0]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# Header of a task's message, and how it is written and read.
REQUEST_ID = ("request_id", request_id.get, request_id.set)
# What each line has of the request or task that it belongs to.
CONTEXT: dict[str, Callable[[], str | None]] = {"request_id": request_id.get}

OF_RECORDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}

_to_json = json.JSONEncoder(default=str).encode


def _encode(line: dict[str, Any]) -> str:
    try:
        return _to_json(line)
    except (TypeError, ValueError):  # a key that is no text, or a value within itself
        return _to_json({name: _as_text(value) for name, value in line.items()})


def _as_text(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else repr(value)


class JsonFormatter(logging.Formatter):
    """What a record has by `extra=` is a field of its line, and so is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line(record.created, record.levelname, record.name, record.getMessage())
        for name, value in vars(record).items():
            if name not in OF_RECORDS:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return _encode(line)


class JsonHandler(logging.StreamHandler[Any]):
    pass


class AnswerCut(Exception):
    """What the server gets in the place of an error that has its line in the log."""


def filter_server(record: logging.LogRecord) -> bool:
    """Drop the server's line of such an error, and the query of a websocket, where
    browsers send what else would be a header: a token.
    """
    if '"WebSocket %s"' in str(record.msg) and isinstance(record.args, tuple):
        client, path, *others = record.args
        record.args = (client, str(path).partition("?")[0], *others)
    return not (record.exc_info and isinstance(record.exc_info[1], AnswerCut))


def log_request(
    logger: logging.Logger, level: int, message: str, fields: dict[str, Any]
) -> None:
    """As `logger.log(level, message, extra=fields)`, without a record if no handler
    but ours would see it: a record costs 20 us.
    """
    if not logger.isEnabledFor(level):
        return
    handlers = logging.root.handlers
    if len(handlers) != 1 or not isinstance(handlers[0], JsonHandler):
        return logger.log(level, message, extra=fields)
    line = _line(time.time(), logging.getLevelName(level), logger.name, message)
    # As a handler does, without the lines if the stream is closed.
    with suppress(OSError, ValueError):
        handlers[0].stream.write(_encode(line | fields) + "\n")
        handlers[0].stream.flush()


def _line(created: float, level: str, logger: str, message: str) -> dict[str, Any]:
    line = {
        "time": f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z",
        LOG_LEVEL: level,
        "logger": logger,
        "message": message,
    }
    for name, read in CONTEXT.items():
        if value := read():
            line[name] = value
    return line


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    """RFC 3339, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def logging_config(level: str) -> dict[str, Any]:
    """For `logging.config`: plain text on a terminal, else JSON."""
    is_terminal = getattr(sys, LOG_STREAM).isatty()
    text = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}, "text": {"format": text}},
        "handlers": {
            "output": {
                "()": logging.StreamHandler if is_terminal else JsonHandler,
                "formatter": "text" if is_terminal else "json",
                "stream": f"ext://sys.{LOG_STREAM}",
            }
        },
        "root": {"handlers": ["output"], "level": level},
        "loggers": {
            # SQLAlchemy logs each connection of the pool under the module of its class.
            f"{PACKAGE}.db.engine.pool": {"level": "WARNING"},
            # The servers log through the root; log_request() writes the access log.
            "uvicorn": {"handlers": [], "propagate": True},
            "uvicorn.error": {"propagate": True, "filters": [filter_server]},
            "uvicorn.access": {"handlers": [], "propagate": False},
        },
    }


def configure_logging(level: str) -> None:
    logging.config.dictConfig(logging_config(level))
    logging.captureWarnings(True)
