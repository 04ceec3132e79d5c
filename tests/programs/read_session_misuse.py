"""Uses of sessions, some of them wrong: for the type checker alone."""

from collections.abc import Sequence
from typing import assert_type
from uuid import UUID

from shop.db import Database, Read, ReadSession, Snapshot, WriteSession
from shop.models import Order
from sqlalchemy import bindparam, select, update

KEPT = select(Order.id, Order.customer).where(Order.id == bindparam("id"))


async def reads(session: ReadSession) -> None:
    assert_type(await session.get(Order, 1), Order | None)
    assert_type((await session.scalars(select(Order))).all(), Sequence[Order])
    assert_type(await session.scalar(select(Order.id)), UUID | None)
    assert_type((await session.execute(KEPT, {"id": 1})).one()[1], str)
    await session.execute(KEPT.union(KEPT), {"id": 1})
    session.add(Order())  # wrong
    await session.execute(update(Order))  # wrong
    await writes(session)  # wrong


async def writes(session: WriteSession) -> None:
    session.add(Order())
    await session.execute(update(Order))
    await reads(session)


async def both(snapshot: Snapshot, read: Read, database: Database) -> None:
    await reads(snapshot)
    await reads(read)
    async with database.snapshot({"app.tenant": "a"}) as session:
        await reads(session)
        await writes(session)  # wrong
    async with database.write({"app.tenant": "a"}) as session_for_writing:
        await writes(session_for_writing)
