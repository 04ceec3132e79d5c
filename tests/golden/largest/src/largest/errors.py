"""Every error is a problem document (RFC 9457), and says what is true."""

import logging
from collections.abc import Callable, Mapping
from http.client import responses
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .db.faults import Fault, OutcomeUnknown, TookTooLong, classify, describe
from .logs import request_id

logger = logging.getLogger(__name__)

ANSWERS = {
    Fault.CONFLICT: (409, "The data on record do not allow this."),
    Fault.BUSY: (503, "Too much is going on. Nothing was changed: try again."),
    Fault.TIMEOUT: (503, "This took too long. Nothing was changed."),
    Fault.UNAVAILABLE: (503, "The database cannot serve this. Nothing was changed."),
    Fault.OUTCOME_UNKNOWN: (504, "Lost during COMMIT: look before you repeat it."),
}


def problem(
    status: int,
    detail: Any,
    *,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """`kind` tells problems of one status apart; a client may rely on it."""
    body = {
        "type": f"urn:problem:{kind}" if kind else "about:blank",
        "title": responses.get(status, "Error"),
        "status": status,
        "detail": detail,
        "request_id": request_id.get(),
        **extra,
    }
    return JSONResponse(body, status, headers, "application/problem+json")


async def _http_error(_: Request, error: HTTPException) -> Response:
    if error.status_code in (204, 304):  # they have no body
        return Response(status_code=error.status_code, headers=error.headers)
    return problem(error.status_code, error.detail, headers=error.headers)


async def _invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    # Where and what, not the value: it may be a secret, or a megabyte.
    errors = [
        {"at": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
        for item in error.errors()
    ]
    return problem(422, "The request is not valid.", errors=errors)


async def _database_error(_: Request, error: Exception) -> JSONResponse:
    fault = classify(error)
    if not fault:
        raise error
    logger.warning("%s: %s", fault, describe(error))
    status, detail = ANSWERS[fault]
    headers = {"Retry-After": "1"} if status == 503 else None  # seconds
    return problem(status, detail, kind=fault, headers=headers)


async def _left(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log: nobody waits for an answer


async def _bug(_: Request, error: Exception) -> JSONResponse:
    # The traceback is in the log: Starlette raises the error again after this.
    headers = {"X-Request-ID": request_id.get() or ""}
    return problem(500, "This is a fault of the service.", headers=headers)


EXCEPTION_HANDLERS: dict[Any, Callable[..., Any]] = {
    ClientDisconnect: _left,
    HTTPException: _http_error,
    RequestValidationError: _invalid_request,
    DBAPIError: _database_error,
    PoolTimeoutError: _database_error,
    OutcomeUnknown: _database_error,
    TookTooLong: _database_error,
    Exception: _bug,
}
