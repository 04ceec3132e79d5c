"""Middleware: errors without a handler, and those that come after the answer."""

import logging
from traceback import walk_tb

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...db.errors import classify, safe_message
from ..logs import AnswerCut
from ..routes import EXCHANGE
from . import problem
from .handlers import (
    CANNOT_BE_READ,
    INTERNAL_ERROR,
    call_handler,
    close,
    find_handler,
)

logger = logging.getLogger(__name__)

FAULT = "This is a fault of the service."
RECEIVERS = {
    each.__code__
    for each in (
        WebSocket.receive_text,
        WebSocket.receive_bytes,
        WebSocket.receive_json,
    )
}


class UnhandledErrors:
    """Answers 500 to an error without a handler, and logs its traceback.

    Starlette would do it outside of every middleware, without their headers, and raise
    the error again: the server would close the connection without a word. An answer
    that has begun is cut, so that its reader sees that it is not whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await self._websocket(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        has_begun = has_ended = False

        async def note(message: Message) -> None:
            nonlocal has_begun, has_ended
            if message["type"] == "http.response.start":
                has_begun = True
            else:
                has_ended = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, note)
        except Exception as raised:
            error = _handled(raised) or raised
            if has_begun and isinstance(error, ClientDisconnect):
                return
            if has_begun and (fault := classify(error)):
                # Without the traceback, in which the database quotes values.
                text = "%s after the answer has begun: %s"
                facts = {"problem": fault}
                logger.error(text, fault, safe_message(error), extra=facts)
                if has_ended:
                    return
                scope[EXCHANGE].problem = fault
                raise AnswerCut(fault) from None
            if has_begun and not has_ended:
                raise
            request = Request(scope, receive, send)
            answer = None if has_begun else await _answer(request, error)
            if not answer:
                logger.exception("unhandled %s", type(error).__name__)
                answer = problem(500, FAULT)
            if not has_begun:
                await answer(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def reach(message: Message) -> None:
            try:
                await send(message)
            except OSError as error:  # the server's: the client has left
                raise WebSocketDisconnect(1006) from error

        try:
            await self.app(scope, receive, reach)
        except WebSocketDisconnect:
            return  # a handler need not catch it
        except Exception as error:
            if _cannot_be_read(error):
                logger.info("websocket closed: %s in a message", type(error).__name__)
                return await close(reach, CANNOT_BE_READ, "a message cannot be read")
            logger.exception("unhandled %s", type(error).__name__)
            await close(reach, INTERNAL_ERROR)


async def _answer(request: Request, error: BaseException) -> Response | None:
    """That of a handler, to an error of a middleware: Starlette finds none for it.

    None for an error that is a fault of the service.
    """
    handler = find_handler(request, error)
    if not handler or handler is request.app.exception_handlers.get(Exception):
        return None
    try:
        return await call_handler(handler, request, error)
    except Exception as again:
        if again is error:
            return None
        logger.exception("unhandled %s", type(again).__name__)
        return problem(500, FAULT)


def _handled(error: Exception) -> BaseException | None:
    """The cause, where Starlette has found a handler that comes too late to answer."""
    cause = error.__cause__
    is_late = isinstance(error, RuntimeError) and "already started" in str(error)
    return cause if is_late else None


def _cannot_be_read(error: Exception) -> bool:
    """Whether a message of the client is none that `receive_json()` reads."""
    frames = walk_tb(error.__traceback__)
    return isinstance(error, (ValueError, KeyError, RecursionError)) and any(
        frame.f_code in RECEIVERS for frame, _ in frames
    )


# Around the handlers, within all other middleware; and for an error of a middleware.
UNHANDLED_ERRORS = Middleware(UnhandledErrors)
