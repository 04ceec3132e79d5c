"""Uses of a read session, some of them wrong: for the type checker alone."""

from shop.db import ReadSession, WriteSession
from shop.models import Order
from sqlalchemy import select, update


async def reads(session: ReadSession) -> None:
    await session.scalars(select(Order))
    session.add(Order())  # wrong
    await session.execute(update(Order))  # wrong
    await writes(session)  # wrong


async def writes(session: WriteSession) -> None:
    session.add(Order())
    await session.execute(update(Order))
    await reads(session)
