"""Several tasks in one session, one task in several sessions."""

import asyncio

from entries import ORDER, cures, provokes, read

SHARED = "This session is provisioning a new connection"
ENDING = "The session ends while a task executes a statement"


@provokes(SHARED)
async def share_a_session_that_has_to_wait_for_its_connection(database):
    async with database.write() as session:
        await asyncio.gather(session.scalars(ORDER), session.scalars(ORDER))


@cures(SHARED)
async def await_one_after_the_other(database):
    async with database.write() as session:
        for _ in range(2):
            await session.scalars(ORDER)


@cures(SHARED)
async def open_a_session_in_each_task(database):
    await asyncio.gather(*(read(database) for _ in range(50)))


@provokes(ENDING)
async def outlive_the_session(database):
    async with database.write() as session:
        await session.scalars(ORDER)
        task = asyncio.create_task(session.scalars(ORDER))
        await asyncio.sleep(0)
    await task


@cures(ENDING)
async def await_the_task(database):
    async with database.write() as session:
        await session.scalars(ORDER)
        task = asyncio.create_task(session.scalars(ORDER))
        await asyncio.sleep(0)
        await task
