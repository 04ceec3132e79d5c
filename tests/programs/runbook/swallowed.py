"""Errors that a handler caught before it went on, and statements that a read session
refuses.
"""

from contextlib import suppress

from entries import ORDER, SERVERS, cures, kill, provokes, read, taken
from shop.models import Order
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

ENDED = "PendingRollbackError"
FAILED = "A statement has failed, so nothing can be committed"
REFUSED = "A read session executes one SELECT"


@provokes(ENDED)
async def swallow_a_failed_flush(database):
    async with database.write() as session:
        session.add(Order(customer="eve", idempotency_key="taken"))
        with suppress(DBAPIError):
            await session.flush()


@provokes(ENDED, on=SERVERS)
async def swallow_a_lost_connection(database):
    async with database.write() as session:
        await kill(database, session)
        with suppress(DBAPIError):
            await session.scalars(ORDER)


@provokes(FAILED)
async def read_after_a_failed_statement(database):
    async with database.write() as session:
        with suppress(DBAPIError):
            await session.execute(taken())
        await session.scalars(ORDER)


@provokes(FAILED)
async def swallow_a_failed_statement(database):
    async with database.write() as session:
        with suppress(DBAPIError):
            await session.execute(taken())


@cures(ENDED, FAILED)
async def try_it_in_a_savepoint(database):
    async with database.write() as session:
        with suppress(DBAPIError):
            async with session.begin_nested():
                await session.execute(taken())
        with suppress(DBAPIError):
            async with session.begin_nested():
                session.add(Order(customer="eve", idempotency_key="taken"))
        await session.execute(select(Order))


@cures(ENDED, on=SERVERS)
async def open_a_new_session(database):
    with suppress(DBAPIError):
        async with database.write() as session:
            await kill(database, session)
            await session.scalars(ORDER)
    await read(database)


@provokes(REFUSED)
async def update_by_a_read_session(database):
    async with database.read() as session:
        await session.execute(update(Order).values(customer="eve"))


@provokes(REFUSED)
async def execute_a_text_by_a_read_session(database):
    async with database.read() as session:
        await session.execute(text("DELETE FROM orders"))


@cures(REFUSED)
async def ask_for_a_write_session(database):
    async with database.write() as session:
        await session.execute(update(Order).values(customer="ada"))
        assert await session.scalar(text("SELECT 1")) == 1
        assert (await session.scalars(ORDER)).one()
