"""Two processes of 50 tasks behind a pooler, and a third process that alters the table.

The output has the errors and wrong answers before and after the change, the rows that
are missing, and the state that is left in the sessions of the server. Arguments: the
number of sessions that the pooler opens, and the units of a task. With `worker` and a
name the program is one of the processes: each line of input begins a round, each line
of output is its outcome.
"""

import asyncio
import json
import sys
from collections import Counter

import uvloop
from shop.db import open_database
from shop.db.engine import validation
from shop.settings import Settings
from sqlalchemy import Integer, column, literal_column, select, table, text

PROCESSES, TASKS, UNITS_AFTER = 2, 50, 8
CREATE = """
    CREATE TYPE mood AS ENUM ('calm', 'stormy');
    CREATE TABLE things (
        id int PRIMARY KEY, at timestamptz, score float8, number int, mood mood
    );
    INSERT INTO things VALUES (1, '2020-01-01 00:00Z', 1.5, 7, 'stormy');
    CREATE TABLE counters (id text PRIMARY KEY, value int);
    CREATE TABLE steps (id text)
"""
# Each to another representation; the first two of the same length.
CHANGE = """
    ALTER TABLE things
        ALTER at TYPE bigint USING extract(epoch FROM at),
        ALTER score TYPE bigint USING 3,
        ALTER number TYPE bigint USING 1099511627776,
        ALTER mood TYPE text USING 'windy',
        ADD extra text DEFAULT 'new'
"""
THINGS = table("things", column("id", Integer))
COLUMNS = ("at", "score", "number", "mood")
BEFORE = ("2020-01-01 00:00:00+00:00", "1.5", "7", "stormy")
AFTER = ("1577836800", "3", "1099511627776", "windy")


def statements(values):
    """Columns to select, and the right answer."""
    for name, value in zip(COLUMNS, values, strict=True):
        yield [name], (value,)
        for number in "123":
            yield [number, name], (number, value)
    yield ["*"], ("1", *values) if values == BEFORE else ("1", *values, "new")


# Fifty tasks of a process wait for five sessions of the pooler.
PATIENT = {
    "database_acquire_timeout_seconds": 30,
    "database_connect_timeout_seconds": 20,
    "database_client_timeout_seconds": 30,
}


class Worker:
    def __init__(self, database, name):
        self.database = database
        self.name = name
        self.errors = Counter()
        self.wrong = Counter()

    async def load(self, units, values):
        tasks = (self.work(number, units, values) for number in range(TASKS))
        await asyncio.gather(*tasks)
        found = {"errors": self.errors, "wrong": self.wrong}
        self.errors, self.wrong = Counter(), Counter()
        return found

    async def work(self, number, units, values):
        asked = list(statements(values))
        for unit in range(units):
            try:
                if unit % 4 == 3:
                    await self.write(f"{self.name}-{number}")
                await self.read(*asked[(number + unit) % len(asked)])
            except Exception as error:
                self.errors[repr(getattr(error, "orig", error))[:100]] += 1

    async def read(self, columns, answer):
        query = select(*map(literal_column, columns)).select_from(THINGS)
        async with self.database.read() as session:
            row = (await session.execute(query.where(THINGS.c.id == 1))).one()
        if tuple(map(str, row)) != answer:
            self.wrong[f"{columns}: {row}"] += 1

    async def write(self, number):
        async with self.database.write() as session:
            for query in (
                "INSERT INTO counters VALUES (:id, 1)"
                " ON CONFLICT (id) DO UPDATE SET value = counters.value + 1",
                "INSERT INTO steps VALUES (:id)",
            ):
                await session.execute(text(query), {"id": number})


async def work(name):
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    validation.IDLE_SECONDS = 0.01  # so that most checkouts ping the connection
    validation.PING_SECONDS = 30
    async with open_database(Settings.load().model_copy(update=PATIENT)) as database:
        worker = Worker(database, name)
        while line := await reader.readline():
            units, now = json.loads(line)
            found = await worker.load(units, BEFORE if now == "before" else AFTER)
            print(json.dumps(found), flush=True)


async def in_each_session(database, query, sessions):
    """Ask in as many transactions at once as the pooler has sessions for."""
    all_ready = asyncio.Barrier(sessions)

    async def ask():
        async with database.write() as session:
            await all_ready.wait()
            answer = await session.scalar(text(query))
            await all_ready.wait()
            return answer

    return sum(await asyncio.gather(*(ask() for _ in range(sessions))))


async def run(workers, *order):
    for worker in workers:
        worker.stdin.write(json.dumps(order).encode() + b"\n")
    rounds = [json.loads(await worker.stdout.readline()) for worker in workers]
    errors, wrong = Counter(), Counter()
    for each in rounds:
        errors.update(each["errors"])
        wrong.update(each["wrong"])
    return {"errors": errors, "wrong": wrong}


async def script(database, lines):
    async with database.write() as session:
        for line in lines.split(";"):
            await session.execute(text(line))


async def main(sessions, units):
    pipe = asyncio.subprocess.PIPE
    settings = Settings.load()
    # The owner of the schema, without the pooler.
    around = Settings(database_url=settings.database_direct_url)
    async with open_database(around) as direct:
        await script(direct, CREATE)
        workers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "worker", str(number)),
                stdin=pipe,
                stdout=pipe,
            )
            for number in range(PROCESSES)
        ]
        found = {"before": await run(workers, units, "before")}
        await script(direct, CHANGE)
        found["after"] = await run(workers, UNITS_AFTER, "after")
        for worker in workers:
            worker.stdin.close()
            await worker.wait()
        async with direct.write() as session:
            query = "SELECT (SELECT sum(value) FROM counters), count(*) FROM steps"
            done = (await session.execute(text(query))).one()
        writes = PROCESSES * TASKS * (units + UNITS_AFTER) // 4
        found["missing"] = [writes - number for number in done]
    async with open_database(settings) as database:
        found["left"] = {
            name: await in_each_session(database, query, sessions)
            for name, query in {
                "prepared": "SELECT count(*) FROM pg_prepared_statements",
                "jit": "SELECT count(*) FROM pg_settings"
                " WHERE name = 'jit' AND setting <> reset_val",
            }.items()
        }
    print(json.dumps(found))


if sys.argv[1] == "worker":
    uvloop.run(work(sys.argv[2]))
else:
    uvloop.run(main(*map(int, sys.argv[1:])))
