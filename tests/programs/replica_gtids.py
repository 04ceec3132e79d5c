"""Scenarios of MySQL: writes whose GTIDs are not at the end of the first interval."""

from replica_servers import FIRST, PAUSE, PRIMARY, RESUME, is_read, until_found
from shop.db.replicas.watermark import current_watermark
from sqlalchemy import make_url

# As that of Group Replication, whose members take numbers from blocks.
GROUP = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"


async def write_is_waited_for_wherever_its_gtid_is(lab):
    """Where the reads went: while the replica was paused, and when it had resumed."""
    lab.url = make_url(lab.url).set(username="root")  # who may choose a GTID
    went = {}
    async with lab.open(FIRST) as database:
        await write(lab, database, f"{GROUP}:1")
        for name, gtid in {
            "another interval": f"{GROUP}:1000042",
            "end of another interval": f"{GROUP}:1000043",
            "another tag": "AUTOMATIC:night_run",
            "gap": f"{GROUP}:2",
        }.items():
            current_watermark.set(None)
            await until_found(lambda: is_read(lab, database))
            await lab.execute(FIRST, PAUSE[lab.dialect])
            await write(lab, database, gtid)
            went[name] = [await lab.read(database)]
            await lab.execute(FIRST, RESUME[lab.dialect])
            await until_found(lambda: is_read(lab, database))
            went[name].append(await lab.read(database))
    return went


async def write_without_a_gtid_is_read_from_the_primary(lab):
    """Where the read went in each mode of the primary, on whose replica nothing waits.

    The write is in no binary log: a replica by GTIDs cannot replay one without.
    """
    lab.url = make_url(lab.url).set(username="root")
    went = {}
    async with lab.open(FIRST) as database:
        engine = database.router.primary.engine
        for mode in ("ON_PERMISSIVE", "OFF_PERMISSIVE"):
            await lab.execute(PRIMARY, f"SET GLOBAL gtid_mode = {mode}")
            try:
                current_watermark.set(None)
                await until_found(lambda: is_read(lab, database))
                await set_variable(engine, "sql_log_bin = 0")
                await lab.write(database)
                await set_variable(engine, "sql_log_bin = 1")
                went[mode] = await lab.read(database)
            finally:
                await lab.execute(PRIMARY, "SET GLOBAL gtid_mode = ON_PERMISSIVE")
        await lab.execute(PRIMARY, "SET GLOBAL gtid_mode = ON")
    return went


async def write(lab, database, gtid):
    """On the connection that the pool gives out first."""
    engine = database.router.primary.engine
    await set_variable(engine, f"gtid_next = '{gtid}'")
    await lab.write(database)
    await set_variable(engine, "gtid_next = 'AUTOMATIC'")


async def set_variable(engine, value):
    async with engine.connect() as connection:
        await connection.exec_driver_sql(f"SET {value}")
