"""Connections that cannot be opened."""

import asyncio
import socket
from pathlib import Path

from pydantic import SecretStr
from rows import CANARY, MYSQL, PLAIN, SERVERS, adds, row, serving
from shop.db import Read, Write
from shop.db.config.backend import DIALECT
from sqlalchemy import literal, select, text

# A user with a password, and with one connection at most.
GUEST = {
    "postgresql": (
        "DROP ROLE IF EXISTS {name}",
        "CREATE ROLE {name} LOGIN PASSWORD '{password}' CONNECTION LIMIT 1",
    ),
    "mysql": (
        "DROP USER IF EXISTS {name}",
        "CREATE USER {name} IDENTIFIED BY '{password}' WITH MAX_USER_CONNECTIONS 1",
        "GRANT ALL ON *.* TO {name}",
    ),
}
# Locked; with a password that has expired.
CLOSED = "ALTER USER {name} ACCOUNT LOCK", "ALTER USER {name} PASSWORD EXPIRE"


async def read(session: Read) -> None:
    await session.execute(select(literal(CANARY)))


async def write(session: Write) -> None:
    await session.execute(adds(f"{CANARY} unconnected"))


async def both(**changes):
    async with serving(read, write, **changes) as client:
        return await asyncio.gather(client.ask("/read"), client.ask("/write"))


async def guest(laboratory, name):
    """Make a user, and answer how it logs in."""
    password = f"{CANARY} ä€%@/#-{name}"  # what a driver may encode otherwise
    names = {"name": name, "password": password}
    await laboratory.execute(*(text(each.format(**names)) for each in GUEST[DIALECT]))
    return {"database_user": name, "database_password": SecretStr(password)}


@row("refused connect", SERVERS)
async def connect_where_nobody_listens(_):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return await both(database_port=closed.getsockname()[1])


@row("silent connect", SERVERS)
async def connect_to_a_server_that_says_nothing(_):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limit = {"database_connect_timeout_seconds": 2}
        return await both(database_port=silent.getsockname()[1], **PLAIN, **limit)


@row("unknown host", SERVERS)
async def connect_to_a_host_that_is_unknown(_):
    return await both(database_host="nowhere.invalid")


@row("wrong password", SERVERS)
async def log_in_with_a_wrong_password(laboratory):
    user = await guest(laboratory, "guest")
    return await both(**user | {"database_password": SecretStr(f"{CANARY}-wrong")})


@row("closed account", MYSQL)
async def log_in_where_the_account_is_closed(laboratory):
    """An answer for each way to close it."""
    answers = []
    for number, closed in enumerate(CLOSED):
        name = f"guest_{number}"
        user = await guest(laboratory, name)
        await laboratory.execute(text(closed.format(name=name)))
        async with serving(read, **user) as client:
            answers.append(await client.ask("/read"))
    return answers


@row("wrong name", SERVERS)
async def ask_for_a_database_that_is_not_there(_):
    return await both(database_name="nowhere")


@row("wrong path", ["aiosqlite"])
async def open_a_file_that_cannot_be(_):
    return await both(database_path=Path("/nowhere/shop.sqlite3"))


@row("too many connections", SERVERS)
async def connect_once_too_often(laboratory):
    async def hold(session: Write) -> None:
        await session.execute(select(literal(CANARY)))
        is_full.set()
        await has_refused.wait()

    is_full, has_refused = asyncio.Event(), asyncio.Event()
    async with serving(hold, **await guest(laboratory, "lonely")) as client:
        first = asyncio.create_task(client.ask("/hold"))
        # One after the other: of two at once PostgreSQL may refuse both.
        async with asyncio.timeout(30):
            await is_full.wait()
        refused = await client.ask("/hold")
        has_refused.set()
        return [await first, refused]
