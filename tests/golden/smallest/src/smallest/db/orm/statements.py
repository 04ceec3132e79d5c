"""Statements of the sessions for reading: how each is executed, and those of get()."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Result,
    bindparam,
    inspect,
    select,
)
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import immutabledict

from . import GUARDED

Values = Mapping[str, Any]  # of the bindparam() of a statement

# All rows are fetched while there is a connection, whatever the statement says.
AT_ONCE = {"yield_per": None, "stream_results": False, **GUARDED}
ALL_ROWS = immutabledict({"prebuffer_rows": True, **AT_ONCE})
# Its listeners are those of every Session, such as a filter of all SELECT.
_EVENTS = Session().dispatch


def fetch(
    bind: Engine | Connection, statement: Any, values: Values | None
) -> Result[Any]:
    # What is no statement, SQLAlchemy rejects.
    is_plain = isinstance(statement, Executable) and not _EVENTS.do_orm_execute
    of_columns = _of_columns(statement) if is_plain else None
    if not of_columns:
        with Session(bind, autoflush=False) as session:
            return session.execute(statement, values, execution_options=ALL_ROWS)
    # A Session would cost half as much again.
    if isinstance(bind, Connection):
        return of_columns(bind.execute(statement, values, execution_options=AT_ONCE))
    with bind.connect() as connection:
        result = connection.execute(statement, values, execution_options=AT_ONCE)
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
def by_key(entity: Any, *options: Any) -> tuple[Any, list[str]]:
    mapper = inspect(entity)
    names = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
    keys = zip(mapper.primary_key, names, strict=True)
    where = [column == bindparam(name) for column, name in keys]
    return select(entity).where(*where).options(*options), names


def key_values(names: list[str], ident: Any) -> Values:
    if isinstance(ident, Mapping):
        return ident
    is_row = isinstance(ident, Sequence) and not isinstance(ident, (str, bytes))
    return dict(zip(names, ident if is_row else [ident], strict=True))
