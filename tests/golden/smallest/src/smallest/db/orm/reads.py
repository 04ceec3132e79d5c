"""Sessions for reading: `ReadOnlySession`, and `SnapshotSession` for one state."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from time import monotonic
from typing import Any, Literal, Protocol, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Engine,
    Executable,
    Result,
    ScalarResult,
    Select,
    bindparam,
    inspect,
    select,
)
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import greenlet_spawn, immutabledict

from ..routing import Router, Target
from .guard import GUARDED

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Values = Mapping[str, Any]  # of the bindparam() of a statement

# As AsyncSession does: all rows are fetched while the session has its connection.
ALL_ROWS = immutabledict({"prebuffer_rows": True, **GUARDED})
ENDED = (
    "This session has ended: with its block, or before the response of its request"
    " started. A background task, a stream or a websocket opens a session of its own:"
    " `async with database.{}() as session`."
)


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
        if others:
            raise InvalidRequestError(
                f"get() of a read session has no {', '.join(others)}: use a Write."
            )
        statement, names = _by_key(entity, *options)
        found = await self.execute(statement, _key(names, ident))
        row: T | None = found.unique().scalars().one_or_none()
        return row

    def end(self) -> None:
        self._ended = True

    async def _fetch(self, statement: Any, values: Values | None) -> Result[Any]:
        target = self._target = await self._router.choose(self._target)
        began = monotonic()
        try:
            return await greenlet_spawn(
                _fetch, target.engine.sync_engine, statement, values
            )
        except SQLAlchemyError as error:
            # No caller has seen a row yet: the statement can be repeated once.
            other = self._router.retry(target, error, monotonic() - began)
            if not other:
                raise
        self._target = other
        return await greenlet_spawn(_fetch, other.engine.sync_engine, statement, values)


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
                return await self._connection.run_sync(_fetch, statement, values)
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
            await (
                connection.begin()
            )  # else a Session would begin and end one of its own
            if self._settings:
                await connection.execute(*self._settings)
            return await connection.run_sync(_fetch, statement, values)
        except BaseException:
            self._connection = None
            await self._stack.aclose()
            raise


def _fetch(
    bind: Engine | Connection, statement: Any, values: Values | None
) -> Result[Any]:
    # What is no statement, SQLAlchemy rejects.
    of_columns = _of_columns(statement) if isinstance(statement, Executable) else None
    if not of_columns:
        with Session(bind, autoflush=False) as session:
            return session.execute(statement, values, execution_options=ALL_ROWS)
    # A Session would cost half as much again.
    if isinstance(bind, Connection):
        return of_columns(bind.execute(statement, values, execution_options=GUARDED))
    with bind.connect() as connection:
        result = connection.execute(statement, values, execution_options=GUARDED)
        return of_columns(result)


# Makes the result of a statement that selects columns; None: a Session does.
Made = Callable[[Result[Any]], Result[Any]] | None
# Of each statement that lives on; False: it was executed once.
_made: "WeakKeyDictionary[Executable, Made | Literal[False]]" = WeakKeyDictionary()


def _of_columns(statement: Executable) -> Made:
    """To find out costs a statement that is built for each request as much as a Session
    does: so it is asked of one that comes again.
    """
    if statement not in _made:
        _made[statement] = False
        return None
    made = _made[statement]
    if made is False:
        made = None
        columns = getattr(statement, "column_descriptions", [{"type": None}])
        if all(isinstance(each["type"], TypeEngine) for each in columns):
            made = _as_it_is
            if "entity" in columns[0]:  # of the ORM
                names = [each["name"] for each in columns]
                attributes = [(each["expr"],) for each in columns]
                made = partial(_named, SimpleResultMetaData(names, attributes))
        _made[statement] = made
    return made


def _as_it_is(result: Result[Any]) -> Result[Any]:
    return result


def _named(columns: SimpleResultMetaData, result: Result[Any]) -> Result[Any]:
    """A value is found by its name and by the attribute of its model."""
    return IteratorResult(columns, iter(result.all()))


# Options are compared by identity, so one that is built for each request is no match.
@lru_cache(maxsize=500)
def _by_key(entity: Any, *options: Any) -> tuple[Any, list[str]]:
    mapper = inspect(entity)
    names = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
    keys = zip(mapper.primary_key, names, strict=True)
    where = [column == bindparam(name) for column, name in keys]
    return select(entity).where(*where).options(*options), names


def _key(names: list[str], ident: Any) -> Values:
    if isinstance(ident, Mapping):
        return ident
    is_row = isinstance(ident, Sequence) and not isinstance(ident, (str, bytes))
    return dict(zip(names, ident if is_row else [ident], strict=True))
