"""The addresses and limits of the replicas in a child of Celery."""

import json
import os

from shop.db.fleet import of_worker
from shop.settings import Settings


class Own(Settings):
    api_key: str


settings = of_worker(Own(api_key="x", database_statement_timeout_seconds=4))
# From here on the environment must not matter.
for name in list(os.environ):
    if name.startswith("DATABASE_"):
        os.environ[name] = "changed"
print(
    json.dumps(
        [
            [
                replica.database_host,
                replica.database_port,
                replica.database_user,
                replica.database_password.get_secret_value(),
                replica.database_name,
                replica.database_sslmode,
                replica.database_pool_size,
                replica.database_statement_timeout_seconds,
            ]
            for replica in settings.replicas()
        ]
    )
)
