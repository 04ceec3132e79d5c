"""A table of faults, and a service for each row of it: provoked by HTTP, and answered.

Each row has a service and a pool of its own: rows run side by side and do not disturb
each other.
"""

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from contextvars import ContextVar

import httpx
import uvicorn
from server_sessions import Server
from shop import main
from shop.db import Base, Read, open_database
from shop.db.config.backend import DIALECT, DRIVER
from shop.settings import Settings
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    String,
    Table,
    func,
    insert,
    select,
)

POSTGRESQL = ("asyncpg", "psycopg")
MYSQL = ("aiomysql", "asyncmy")
SERVERS = POSTGRESQL + MYSQL
DEFERRING = (*POSTGRESQL, "aiosqlite")
EVERY = (*SERVERS, "aiosqlite")

# In a parameter of every statement, and in a password: never in a log or an answer.
CANARY = "canary"
ORDER = {
    "customer": CANARY,
    "lines": [{"sku": sku, "quantity": 1, "price_cents": 1} for sku in ("tea", "milk")],
}
SETTINGS = Settings.load()
PLAIN = {"database_sslmode": "disable"}
# All rows connect at once.
UNHURRIED = {
    "database_connect_timeout_seconds": 10,
    "database_acquire_timeout_seconds": 10,
}
PATIENT = UNHURRIED | {
    "database_lock_timeout_seconds": 10,
    "database_statement_timeout_seconds": 10,
    "database_client_timeout_seconds": 12,
}
# Longer than a connection may be idle without being asked whether it is still there.
IDLE_SECONDS = 1.1
ONE = {"database_pool_size": 1, "database_max_overflow": 0}
IDENTITY = select(
    func.pg_backend_pid() if DRIVER in POSTGRESQL else func.connection_id()
)
DEFERRED = {"deferrable": True, "initially": "DEFERRED"} if DRIVER in DEFERRING else {}

THINGS = Table(
    "things",
    Base.metadata,
    Column("name", String(50), primary_key=True),
    Column("parent", ForeignKey("things.name")),
    Column("later", ForeignKey("things.name", **DEFERRED)),
    Column("code", String(50), unique=True),
    Column("size", BigInteger, nullable=False, default=1),
    CheckConstraint("size > 0", name="size"),
)

NO_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would make a slow one

ROWS = {}
BODIES = []
current = ContextVar("current")


def row(name, on=EVERY):
    def keep(provoke):
        if DRIVER in on:
            ROWS[name] = provoke
        return provoke

    return keep


def adds(name, **values):
    """Give a row to the table of things."""
    return insert(THINGS).values(name=name, **values)


def outcome(answer):
    """As "503 busy again after 1 s"."""
    BODIES.append(answer.text)
    words = [str(answer.status_code)]
    if answer.headers.get("content-type") == "application/problem+json":
        words.append(answer.json()["type"].removeprefix("urn:problem:"))
    if seconds := answer.headers.get("retry-after"):
        words.append(f"again after {seconds} s")
    return " ".join(words)


class Client(httpx.AsyncClient):
    async def ask(self, path, **query):
        return outcome(await self.post(path, params=query))

    def repeat_late_reads(self):
        """As early ones: a busy machine takes longer to kill than a read may take."""
        router = self.database.router
        retry = router.retry
        router.retry = lambda target, error, _: retry(target, error, 0)


@asynccontextmanager
async def serving(*handlers, **changes):
    """The service with more routes, each with the name of its handler."""
    settings = SETTINGS.model_copy(update=UNHURRIED | changes)
    app = main.create_app(settings)
    for handler in (*handlers, identity):
        app.add_api_route(f"/{handler.__name__}", handler, methods=["POST"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # A connection that a client is about to use is not closed. The handlers of a
        # row that has failed may wait for ever.
        config = uvicorn.Config(
            app, log_config=None, timeout_keep_alive=60, timeout_graceful_shutdown=10
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listener]))
        while not server.started and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        url = "http://{}:{}".format(*listener.getsockname())
        headers = {"X-Request-ID": current.get()}
        try:
            async with Client(
                base_url=url, headers=headers, timeout=20, verify=NO_CONTEXT
            ) as client:
                client.database = server.lifespan.state["database"]
                client.engine = client.database.engine.sync_engine
                yield client
        finally:
            server.should_exit = True
            await running


async def identity(session: Read) -> int | None:
    """What the server calls the connection, which is the only one of its pool."""
    return await session.scalar(IDENTITY)


class Laboratory:
    """The database as an administrator sees it, by another way than the service."""

    def __init__(self, database):
        self.database = database
        self.server = Server(database, DIALECT) if DRIVER in SERVERS else None

    async def execute(self, *statements):
        async with self.database.write() as session:
            for statement in statements:
                await session.execute(statement)

    async def has(self, name):
        async with self.database.read() as session:
            query = select(THINGS.c.name).where(THINGS.c.name == name)
            return await session.scalar(query) is not None

    async def kill(self, number):
        """End a session, and wait until it has."""
        await self.server.kill(number)
        await until(self.is_gone, number)

    async def is_gone(self, number):
        return number not in await self.server.sessions()


async def until(condition, *arguments):
    async with asyncio.timeout(30):
        while not await condition(*arguments):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def laboratory():
    patient = SETTINGS.model_copy(update=PATIENT)
    async with open_database(patient) as database:
        async with database.writes.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield Laboratory(database)
