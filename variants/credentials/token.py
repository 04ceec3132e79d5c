"""Credentials: a token of the cloud, valid as a password for some minutes."""

import asyncio
import os
from concurrent.futures import Future
from threading import Thread
from time import monotonic
from typing import Self

from pydantic import field_validator, model_validator

from .environment import EnvironmentSettings
from .server import LOOPBACK, is_local
from .token_provider import PROVIDER, fetch_token

# A connect waits for less. After so long the next connect asks for another token.
FETCH_SECONDS = 10

Login = tuple[str, int, str]  # host, port, user


class Token:
    """Fetched in a thread: the event loop goes on, and the process can end."""

    def __init__(self, login: Login) -> None:
        self.text: Future[str] = Future()
        self.valid_until = monotonic() + FETCH_SECONDS
        Thread(target=self._fetch, args=login, daemon=True).start()

    def _fetch(self, host: str, port: int, user: str) -> None:
        try:
            token, seconds = fetch_token(host, port, user)
        except Exception as error:
            reason = str(error).split("\n")[0]
            self.valid_until = 0
            failure = ConnectionError(f"no token of {PROVIDER}: {reason}")
            self.text.set_exception(failure)
        else:
            self.valid_until = monotonic() + seconds
            self.text.set_result(token)


# Shared by all connections of the process.
_TOKENS: dict[Login, Token] = {}
# The threads that fetch them stay in the parent.
os.register_at_fork(after_in_child=_TOKENS.clear)


class Credentials(EnvironmentSettings):
    database_host: str
    database_port: int
    database_user: str
    database_password: None = None
    database_sslmode: str

    async def password(self, *_: object) -> str | None:
        """The token; ConnectionError if the cloud gives none."""
        if self.database_host in LOOPBACK and self.database_sslmode == "disable":
            return None  # a test, or a proxy that logs in by itself
        login = (self.database_host, self.database_port, self.database_user)
        token = _TOKENS.get(login)
        if not token or token.valid_until < monotonic():
            token = _TOKENS[login] = Token(login)
        return await asyncio.shield(asyncio.wrap_future(token.text))

    @field_validator("database_password", mode="before")
    @classmethod
    def _refuse_password(cls, password: object) -> None:
        if password is not None:
            raise ValueError(
                f"tokens of {PROVIDER} are the password: remove it, also from the URL"
            )

    @model_validator(mode="after")
    def _check_token_encryption(self) -> Self:
        if self.database_sslmode == "disable" and not is_local(self.database_host):
            raise ValueError(
                "DATABASE_SSLMODE=disable would show the token to the network:"
                " use verify-full."
            )
        return self
