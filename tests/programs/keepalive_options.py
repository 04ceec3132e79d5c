"""The options for keep-alive that the socket of an idle connection has."""

import asyncio
import os
import socket as s

from shop.db.engine.create import create_engine
from shop.db.engine.driver import fileno
from shop.settings import Settings


async def main():
    settings = Settings.load()
    engine = create_engine(settings.server, settings.limits)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        tcp = s.socket(fileno=os.dup(fileno(raw.driver_connection)))
        options = (s.TCP_KEEPIDLE, s.TCP_KEEPINTVL, s.TCP_KEEPCNT, s.TCP_USER_TIMEOUT)
        print(
            tcp.getsockopt(s.SOL_SOCKET, s.SO_KEEPALIVE),
            *(tcp.getsockopt(s.IPPROTO_TCP, option) for option in options),
        )
        tcp.close()
    await engine.dispose()


asyncio.run(main())
