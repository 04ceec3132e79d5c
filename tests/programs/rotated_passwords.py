"""The passwords of the primary and of replicas, after a file of theirs has changed."""

import asyncio
import json
import sys
from pathlib import Path

from shop.settings import Settings

settings = Settings.load()
servers = settings.server, *settings.replicas.values()
file = Path(sys.argv[1])
file.write_text(file.read_text().replace("first", "second"))
print(json.dumps([asyncio.run(server.password()) for server in servers]))
