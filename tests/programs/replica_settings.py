"""The replicas, limits and broker of a worker whose settings are partly in memory."""

import asyncio
import json
import os

from shop.features import CONFIGURE
from shop.settings import Settings
from shop.worker.app import celery


class Own(Settings):
    api_key: str


async def main():
    in_memory = {
        "celery_broker_url": "rediss://:hunter2@other/1",
        "celery_pool_size": 2,
        "celery_task_timeout_seconds": 7,
    }
    own = Own(api_key="x", database_statement_timeout_seconds=4, **in_memory)
    settings = own.for_worker()
    # From here on the environment must not matter.
    for name in list(os.environ):
        if name.startswith(("DATABASE_", "CELERY_")):
            os.environ[name] = "changed"
    for configure in CONFIGURE:
        configure(settings)
    found = {
        "names": [*settings.replicas],
        "connections": settings.connections,
        "replicas": [
            [
                *(replica.host, replica.port, replica.user, await replica.password()),
                *(replica.database, replica.sslmode),
            ]
            for replica in settings.replicas.values()
        ],
        "limits": [
            settings.limits.pool_size,
            settings.limits.max_overflow,
            settings.limits.statement_timeout_seconds,
        ],
        "broker": [
            celery.connection_for_write().as_uri(include_password=True),
            celery.connection_for_read().as_uri(include_password=True),
            celery.conf.task_time_limit,
        ],
    }
    print(json.dumps(found))


asyncio.run(main())
