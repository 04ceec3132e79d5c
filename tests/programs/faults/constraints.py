"""Violations of constraints: reported at the statement, or at COMMIT."""

from rows import CANARY, DEFERRING, THINGS, adds, row, serving
from shop.db import Write
from sqlalchemy import delete

PARENT, CHILD = f"{CANARY} parent", f"{CANARY} child"
FAULTY = {
    "unique": [adds("one", code=CANARY), adds("two", code=CANARY)],
    "foreign key": [adds("three", parent=CANARY)],
    "foreign key of others": [
        adds(PARENT),
        adds(CHILD, parent=PARENT),
        delete(THINGS).where(THINGS.c.name == PARENT),
    ],
    "not null": [adds("four", code=f"{CANARY} 4", size=None)],
    "check": [adds("five", code=f"{CANARY} 5", size=-1)],
}


def refused(*statements):
    async def provoke(laboratory):
        async def add(session: Write) -> None:
            await session.execute(adds(name))
            for statement in statements:
                await session.execute(statement)

        name = f"before {id(statements)}"
        async with serving(add) as client:
            return [await client.ask("/add"), await laboratory.has(name)]

    return provoke


for name, statements in FAULTY.items():
    row(name)(refused(*statements))
row("deferred", DEFERRING)(refused(adds("six", later=CANARY)))
