"""Behind PgBouncer, in both generations: before and after it knew what is prepared."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from tests.servers import PGBOUNCERS, PgBouncer

pytestmark = pytest.mark.boot


@pytest.fixture(params=PGBOUNCERS)
def generation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_pgbouncer_is_what_it_says(
    pooler_of: Callable[..., PgBouncer], generation: str
) -> None:
    """And lets a client in with and without TLS."""
    pooler = pooler_of(generation)

    async def connect(url: str) -> None:
        await (await asyncpg.connect(url)).close()

    asyncio.run(connect(pooler.url))
    asyncio.run(connect(pooler.verified))

    (version,) = pooler.ask("SHOW VERSION")
    assert version["version"].startswith(f"PgBouncer {generation}.")
