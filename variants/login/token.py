"""How to log in: with a token, which is a password for some minutes."""

import asyncio
import os
from concurrent.futures import Future
from threading import Thread
from time import monotonic
from typing import Self

from pydantic import field_validator, model_validator

from .environment import EnvironmentSettings
from .issuer import ISSUER, issue

# The network that nobody else can read.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Whoever connects waits for less; those who come later ask again.
ISSUE_SECONDS = 10

Server = tuple[str, int, str]  # host, port, user


class Token:
    """Asked for in a thread of its own: the loop goes on, and the process can end."""

    def __init__(self, server: Server) -> None:
        self.text: Future[str] = Future()
        self.until = monotonic() + ISSUE_SECONDS
        Thread(target=self._ask, args=server, daemon=True).start()

    def _ask(self, host: str, port: int, user: str) -> None:
        try:
            token, seconds = issue(host, port, user)
        except Exception as error:
            reason = str(error).split("\n")[0]
            self.until = 0
            self.text.set_exception(ConnectionError(f"no token of {ISSUER}: {reason}"))
        else:
            self.until = monotonic() + seconds
            self.text.set_result(token)


# One for all connections of the process.
_TOKENS: dict[Server, Token] = {}
# The thread that would bring it lives in the parent.
os.register_at_fork(after_in_child=_TOKENS.clear)


class Login(EnvironmentSettings):
    database_host: str
    database_port: int
    database_user: str
    database_password: None = None
    database_sslmode: str

    async def password(self) -> str | None:
        if self.database_sslmode == "disable":  # on loopback: a test, or a proxy
            return None
        server = (self.database_host, self.database_port, self.database_user)
        token = _TOKENS.get(server)
        if not token or token.until < monotonic():
            token = _TOKENS[server] = Token(server)
        return await asyncio.shield(asyncio.wrap_future(token.text))

    @field_validator("database_password", mode="before")
    @classmethod
    def _refuse(cls, password: object) -> None:
        if password is not None:
            raise ValueError(
                f"tokens of {ISSUER} are the password: remove it, also from the URL"
            )

    @model_validator(mode="after")
    def _check_encryption(self) -> Self:
        if self.database_sslmode == "disable" and self.database_host not in LOOPBACK:
            raise ValueError(
                "DATABASE_SSLMODE=disable would show the token to the network:"
                " use verify-full."
            )
        return self
