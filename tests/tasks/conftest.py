"""A broker for each test, and the service with Celery in front of it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rendering import ROOT, Answers
from tests.support.servers import Redis, Server
from tests.support.service import PROGRAMS, Service
from tests.support.task_shop import Shop

# Each payment is written down, also one that changes nothing.
AUDIT = (
    "CREATE TABLE paid (order_id uuid)",
    "CREATE FUNCTION pay() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN INSERT INTO paid VALUES (NEW.id); RETURN NEW; END'",
    "CREATE TRIGGER pay AFTER UPDATE ON orders FOR EACH ROW"
    " WHEN (NEW.status = 'paid') EXECUTE FUNCTION pay()",
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as redis:
        redis.start()
        yield redis


@pytest.fixture
def shop_of(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
    server_of: Callable[[str], Server],
    redis: Redis,
    tmp_path: Path,
) -> Callable[..., Shop]:
    """The service with Celery, on a driver; its workers include tasks of the tests.

    The answer `celery_engine` decides about one module, as test_render.py shows.
    """

    def make(driver: str, engine: str = "persistent", **answers: Any) -> Shop:
        service = rendered({"driver": driver, "with_celery": True, **answers})
        source = service.folder / "src"
        if engine == "per_task":
            source = Path(shutil.copytree(source, tmp_path / "per_task"))
            module = ROOT / "variants" / "runtime" / "per_task.py"
            shutil.copy2(module, source / "shop" / "worker" / "runtime.py")
        variables = database(driver) | {"CELERY_BROKER_URL": redis.url}
        variables |= {"PYTHONPATH": f"{source}:{PROGRAMS}"}
        return Shop(service, server_of(driver), variables)

    return make


@pytest.fixture
def audited(shop_of: Callable[..., Shop]) -> Callable[..., Shop]:
    """With its tables, and each payment written down."""

    def make(engine: str = "persistent") -> Shop:
        shop = shop_of("asyncpg", engine)
        shop.service.migrate(**shop.variables)
        for statement in AUDIT:
            shop.rows(statement)
        return shop

    return make
