"""Sessions for reading: `ReadOnlySession`, and `SnapshotSession` for one state."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast

from sqlalchemy import CompoundSelect, Result, ScalarResult, Select
from sqlalchemy.exc import InvalidRequestError, NoResultFound, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.util import greenlet_spawn

from ..routing import Router, Target
from . import ENDED
from .statements import Values, by_key, fetch, key_values

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ReadSession(Protocol):
    """What a session for reading offers; a session for writing offers it too."""

    async def execute(
        self,
        statement: Select[*Ts] | CompoundSelect[*Ts],
        values: Values | None = None,
        /,
    ) -> Result[*Ts]: ...
    async def scalars(
        self, statement: Select[T] | CompoundSelect[T], values: Values | None = None, /
    ) -> ScalarResult[T]: ...
    async def scalar(
        self, statement: Select[T] | CompoundSelect[T], values: Values | None = None, /
    ) -> T | None: ...
    async def get(
        self, entity: type[T], ident: Any, /, *, options: Sequence[ORMOption] = ()
    ) -> T | None: ...
    async def get_one(
        self, entity: type[T], ident: Any, /, *, options: Sequence[ORMOption] = ()
    ) -> T: ...


# In place of what a session for reading does not have.
INSTEAD = {
    "refresh": "read the row again by get()",
    "stream": "use an Export",
    "stream_scalars": "use an Export",
}


class ReadOnlySession:
    """Executes SELECT, each statement by itself: one round trip, no transaction.

    A connection is checked out for as long as a statement runs. All statements go to
    one server; the objects that they return are detached.
    """

    kind = "read"

    def __init__(self, router: Router) -> None:
        self._router = router
        self._target: Target | None = None
        self._ended = False

    async def execute(
        self, statement: Any, values: Values | None = None, /
    ) -> Result[Any]:
        """InvalidRequestError unless the statement is one SELECT that only reads."""
        if self._ended:
            raise InvalidRequestError(ENDED.format(self.kind))
        return await self._fetch(statement, values)

    async def scalars(
        self, statement: Any, values: Values | None = None, /
    ) -> ScalarResult[Any]:
        return (await self.execute(statement, values)).scalars()

    async def scalar(self, statement: Any, values: Values | None = None, /) -> Any:
        return (await self.execute(statement, values)).scalar()

    async def get(
        self,
        entity: type[T],
        ident: Any,
        /,
        *,
        options: Sequence[ORMOption] = (),
        **others: object,
    ) -> T | None:
        if found := [name for name, value in others.items() if value]:
            raise InvalidRequestError(
                f"get() of a read session has no {', '.join(found)}: use a Write."
            )
        statement, names = by_key(cast("Any", entity), *options)
        rows = await self.execute(statement, key_values(names, ident))
        row: T | None = rows.unique().scalars().one_or_none()
        return row

    async def get_one(self, entity: type[T], ident: Any, /, **options: Any) -> T:
        row = await self.get(entity, ident, **options)
        if row is None:
            raise NoResultFound("No row was found when one was required")
        return row

    def __getattr__(self, name: str) -> Any:
        if not hasattr(AsyncSession, name):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        advice = INSTEAD.get(name, "use a Write")
        raise AttributeError(f"A read session has no {name}(): {advice}.")

    def end(self) -> None:
        self._ended = True

    async def _fetch(self, statement: Any, values: Values | None) -> Result[Any]:
        target = self._target = await self._router.choose(self._target)
        began = monotonic()
        try:
            return await greenlet_spawn(
                fetch, target.engine.sync_engine, statement, values
            )
        except SQLAlchemyError as error:
            # No caller has seen a row yet: the statement can be repeated once.
            other = self._router.retry(target, error, monotonic() - began)
            if not other:
                raise
        self._target = other
        return await greenlet_spawn(fetch, other.engine.sync_engine, statement, values)


class SnapshotSession(ReadOnlySession):
    """One transaction that only reads: all its SELECTs see one state.

    It begins with the first statement, and keeps a connection to its end. `settings`
    is a statement with its values: local settings of the transaction.
    """

    kind = "snapshot"

    def __init__(self, router: Router, settings: tuple[Any, Values] | None) -> None:
        super().__init__(router)
        self._settings = settings
        self._connection: AsyncConnection | None = None
        self._stack = AsyncExitStack()
        # One after another: there is one connection.
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        self.end()
        await self._stack.aclose()

    async def _fetch(self, statement: Any, values: Values | None) -> Result[Any]:
        async with self._lock:
            if self._connection:
                return await self._connection.run_sync(fetch, statement, values)
            target = await self._router.choose(None)
            began = monotonic()
            try:
                return await self._begin(target, statement, values)
            except SQLAlchemyError as error:
                # No caller has seen this state yet: another will do.
                other = self._router.retry(target, error, monotonic() - began)
                if not other:
                    raise
            return await self._begin(other, statement, values)

    async def _begin(
        self, target: Target, statement: Any, values: Values | None
    ) -> Result[Any]:
        try:
            connection = target.snapshots.connect()
            self._connection = await self._stack.enter_async_context(connection)
            if self._ended:  # meanwhile: close() has had nothing to close
                raise InvalidRequestError(ENDED.format(self.kind))
            await (
                connection.begin()
            )  # else a Session would begin and end one of its own
            if self._settings:
                await connection.execute(*self._settings)
            return await connection.run_sync(fetch, statement, values)
        except BaseException:
            self._connection = None
            await self._stack.aclose()
            raise
