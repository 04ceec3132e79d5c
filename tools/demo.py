"""Renders the defaults, starts the service on a database, and uses it over HTTP."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.support.rendering import isolate, snapshot
from tests.support.servers import binaries, launcher
from tests.support.service import ORDER, Service, copy


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # and end what was started
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the database server has a user of its own
        os.environ.update(isolate(folder / "home"))
        say("Rendering the default answers")
        service = copy(snapshot(folder / "template"), folder / "demo", {})
        say("Starting PostgreSQL")
        with launcher.started(binaries(), folder / "database") as url:
            show(service, url)


def show(service: Service, url: str) -> None:
    say("Installing the service and migrating its database")
    service.make("migrate", DATABASE_URL=url)
    say("Starting the service")
    with service.running(DATABASE_URL=url) as running:
        created = running.client.post("/orders", json=ORDER).raise_for_status()
        path = f"/orders/{created.json()['id']}"
        print(f"\nPOST /orders\n{created.status_code} {pretty(created.json())}")
        read = running.client.get(path).raise_for_status()
        print(f"\nGET {path}\n{read.status_code} {pretty(read.json())}")
        print(f"\n{running.client.base_url}/docs")
        if sys.stdin.isatty():
            say("Ctrl-C ends the service and its database")
            try:
                running.process.wait()
            except KeyboardInterrupt:
                print()


def pretty(value: object) -> str:
    return json.dumps(value, indent=2)


def say(text: str) -> None:
    print(f"{text} ...", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
