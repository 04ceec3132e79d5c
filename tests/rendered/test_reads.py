"""What a read session refuses, and that rows come alike by each way."""

from typing import Any

import pytest
from shop.db import Database
from shop.db.config.backend import DIALECT
from sqlalchemy import (
    Result,
    bindparam,
    column,
    delete,
    event,
    exists,
    false,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.exc import InvalidRequestError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, aliased, with_loader_criteria
from test_sessions import PROBES, Probe, checked_out, probes, rows

ID = PROBES.c.id
pytestmark = pytest.mark.usefixtures(probes.__name__)

INSERT = insert(PROBES).values(id=1)
REFUSED: dict[str, Any] = {
    "insert": INSERT,
    "insert of an entity": insert(Probe).values(id=1),
    "update": update(PROBES).values(id=1),
    "delete": delete(PROBES),
    "lock": select(ID).with_for_update(),
    "lock of an entity": select(Probe).with_for_update(read=True, skip_locked=True),
    "lock in a union": select(ID).union(
        select(ID).with_for_update().subquery().select()
    ),
    "text that inserts": text("INSERT INTO probes (id) VALUES (1)"),
    "text that locks": text("SELECT id FROM probes\n for  update"),
    "text that sets": text("SET x = 1"),
    "text that follows a comment": text("/* SELECT */ DELETE FROM probes"),
    "two statements": text("SELECT 1; DELETE FROM probes"),
    "two statements in a column": select(text("1; DELETE FROM probes")),
    "rows of a text": text("DELETE FROM probes RETURNING id").columns(column("id")),
    "entities of a text": select(Probe).from_statement(
        text("INSERT INTO probes (id) VALUES (1) RETURNING id, parent")
    ),
    "into": text("SELECT id INTO copies FROM probes"),
    "text in a CTE": text("WITH a AS (UPDATE probes SET id = 2 RETURNING id) SELECT 1"),
    "after a CTE": text("WITH a AS (SELECT 1) DELETE FROM probes"),
    "join after a CTE": text(
        "WITH a AS (SELECT 1 AS x) UPDATE probes JOIN a ON (a.x = id) SET id = 2"
    ),
    "brackets after a CTE": text(
        "WITH a AS (SELECT 1) DELETE p\nFROM probes AS p JOIN a USING (id)"
    ),
}
OF_DIALECT: dict[str, dict[str, Any]] = {
    "postgresql": {
        "CTE": select(INSERT.returning(ID).cte()),
        "CTE apart": select(1).add_cte(INSERT.returning(ID).cte()),
        "CTE in a CTE": select(select(INSERT.returning(ID).cte()).cte()),
        "CTE in a condition": select(ID).where(
            ID.in_(select(delete(PROBES).returning(ID).cte().c.id))
        ),
        "setting": select(func.set_config("app.tenant", "acme", false())),
        "local setting": select(func.set_config("app.tenant", "acme", true())),
        "setting in a condition": select(1).where(
            exists().where(func.set_config("app.tenant", "a", false()) == "a")
        ),
        "lock of no row": select(func.pg_try_advisory_lock(1)),
        "schema": select(func.pg_catalog.pg_advisory_xact_lock(1)),
        "quoted": select(literal_column("pg_catalog.\"pg_notify\" ('a', 'b')")),
        "sequence": select(func.nextval("x")),
        "after a CTE that searches": text(
            "WITH RECURSIVE a AS (SELECT 1 AS x UNION SELECT x FROM a)"
            " SEARCH DEPTH FIRST BY x SET y UPDATE probes SET id = 2"
        ),
        "text of its own": text("SELECT $$;$$, E'\\'', setval('x', 1)"),
    },
    "mysql": {
        "lock of no row": select(func.get_lock("a", 1)),
        "file": select(literal_column("1 INTO OUTFILE '/tmp/x'")),
        "read file": select(func.LOAD_FILE("/etc/hosts")),
        "variable": select(literal_column("@a := 1")),
        "last id": select(func.last_insert_id(5)),
        "share": text("SELECT 1 LOCK IN SHARE MODE"),
        "comment that is executed": text("SELECT 1 /*!50000 FOR UPDATE */"),
        "text of its own": text("SELECT 'it\\'s', RELEASE_ALL_LOCKS()"),
    },
    "sqlite": {"pragma": text("PRAGMA user_version = 1")},
}
REFUSED |= OF_DIALECT["mysql" if DIALECT == "mariadb" else DIALECT]


@pytest.mark.parametrize("kind", ["read", "snapshot"])
async def test_read_session_refuses_what_does_not_only_read(
    database: Database, kind: str
) -> None:
    """Also what locks and keeps state, and before it is sent."""
    sent: list[str] = []
    event.listen(
        database.engine.sync_engine,
        "after_cursor_execute",
        lambda _, __, sql, *___: sent.append(sql),
    )
    accepted = []
    for name, statement in REFUSED.items():
        for _ in range(3):  # one that comes again goes another way
            async with getattr(database, kind)() as session:
                try:
                    await session.execute(statement)
                except InvalidRequestError as error:
                    if "A read session" in str(error) and "use a Write" in str(error):
                        continue
                accepted.append(name)

    assert not accepted
    assert [
        sql for sql in sent if "BEGIN" not in sql and "TRANSACTION" not in sql
    ] == []
    assert checked_out(database) == 0
    assert await rows(database) == []


async def test_read_session_refuses_to_get_with_a_lock(database: Database) -> None:
    async with database.read() as session:
        with pytest.raises(InvalidRequestError, match="with_for_update: use a Write"):
            await session.get(Probe, 1, with_for_update=True)
        assert await session.get(Probe, 1, with_for_update=None) is None
        with pytest.raises(NoResultFound):
            await session.get_one(Probe, 1)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("refresh", r"get\(\)"), ("stream", "Export"), ("add", "Write")],
)
async def test_read_session_says_what_to_use_instead(
    database: Database, name: str, advice: str
) -> None:
    async with database.read() as session:
        with pytest.raises(AttributeError, match=rf"has no {name}\(\): .*{advice}"):
            getattr(session, name)
        assert not hasattr(session, "anything")


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 ; ",
        "VALUES (1)" if DIALECT == "postgresql" else "SELECT 1",
        "WITH a AS (SELECT 1) SELECT 1 FROM a",
        "SELECT 'a; DELETE FROM probes FOR UPDATE', replace('a', 'b', 'c')",
        "SELECT probes.id AS nextval FROM probes -- FOR UPDATE",
        "/* ; */ SELECT count(id) FROM probes WHERE (id = 1)",
    ],
)
async def test_read_session_takes_a_text_that_only_reads(
    database: Database, sql: str
) -> None:
    async with database.read() as session:
        await session.execute(text(sql))


def seen(result: Result[Any]) -> Any:
    """Names, and values without the identity of an object."""
    names = [*result.keys()]
    values = ([getattr(value, "id", value) for value in row] for row in result)
    return names, sorted(values, key=str)


async def test_rows_are_the_same_however_a_statement_is_executed(
    database: Database,
) -> None:
    """By a Session, and by Core when it comes again."""
    other = aliased(Probe)
    statements: list[Any] = [
        select(Probe.id, Probe.parent),
        select(other.id, func.count(other.parent)).group_by(other.id),
        select(Probe, Probe.id),
        select(Probe),
        select(ID, func.count()).group_by(ID),
        select(Probe.id).union(select(Probe.parent)),
        select(Probe.id.label("number"), exists().where(Probe.id == 1)),
        text("SELECT id FROM probes"),
    ]
    async with database.write() as session:
        await session.execute(insert(PROBES), [{"id": 1}, {"id": 2}])
    for statement in statements:
        async with AsyncSession(database.engine) as plain:
            expected = seen(await plain.execute(statement))
        for _ in range(3):
            async with database.read() as reads:
                assert seen(await reads.execute(statement)) == expected
    async with database.read() as reads:
        for _ in range(3):
            row = (await reads.execute(statements[0])).first()
            assert row
            assert row._mapping[Probe.id] == row.id


async def test_values_fill_a_statement_that_is_kept(database: Database) -> None:
    kept = select(Probe.id).where(Probe.id == bindparam("id"))
    async with database.write() as session:
        session.add(Probe(id=7))
        await session.flush()
        assert await session.scalar(kept, {"id": 7}) == 7
    async with database.read() as reads, database.snapshot() as snapshot:
        for _ in range(3):
            for session in (reads, snapshot):
                assert await session.scalar(kept, {"id": 7}) == 7
                assert (await session.scalars(kept, {"id": 8})).all() == []
                assert (await session.execute(kept, {"id": 7})).one() == (7,)


async def test_get_builds_no_statement_twice(database: Database) -> None:
    executed = []
    event.listen(
        database.engine.sync_engine,
        "before_execute",
        lambda _, statement, *__: executed.append(statement),
    )
    for key in (1, (1,), {"id": 1}):
        async with database.read() as session:
            await session.get(Probe, key)

    assert len(executed) == 3
    assert len({*map(id, executed)}) == 1


async def test_filter_of_every_statement_holds_each_time(database: Database) -> None:
    """As the recipe of SQLAlchemy for rows that are deleted softly, or of a tenant."""
    kept = select(Probe.id)

    def hide(state: ORMExecuteState) -> None:
        hidden = with_loader_criteria(Probe, Probe.id != 1)
        state.statement = state.statement.options(hidden)  # type: ignore[attr-defined]

    async with database.write() as session:
        await session.execute(insert(PROBES), [{"id": 1}, {"id": 2}])
    event.listen(Session, "do_orm_execute", hide)
    try:
        async with database.read() as reads, database.snapshot() as snapshot:
            for _ in range(3):
                for session in (reads, snapshot):
                    assert (await session.scalars(kept)).all() == [2]
    finally:
        event.remove(Session, "do_orm_execute", hide)


async def test_read_has_all_rows_of_a_statement_that_yields_parts(
    database: Database,
) -> None:
    async with database.write() as session:
        await session.execute(insert(PROBES), [{"id": 1}, {"id": 2}])
    for entity in (Probe, Probe.id):
        kept = select(entity).order_by(Probe.id).execution_options(yield_per=1)
        for _ in range(3):
            async with database.read() as reads:
                found = (await reads.scalars(kept)).all()
            assert [getattr(each, "id", each) for each in found] == [1, 2]
