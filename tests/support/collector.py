"""A receiver of spans for a service, and a caller that has begun a trace."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.service import PROGRAMS, Service, free_port, wait_until

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# It records its trace.
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
# Export at once, and not every 5 s.
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


class Collector:
    def __init__(self, port: int, file: Path) -> None:
        self.endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        self._file = file

    def spans(self, trace: str = "") -> list[Any]:
        found = [json.loads(line) for line in self._file.read_text().splitlines()]
        return [each for each in found if trace in ("", each["trace"])]


@contextmanager
def collecting(service: Service, folder: Path) -> Iterator[Collector]:
    """A receiver of spans, in the environment of the service."""
    port, file = free_port(), folder / "spans"
    file.touch()
    python = service.folder / ".venv" / "bin" / "python"
    command = map(str, [python, PROGRAMS / "span_collector.py", port, file])
    process = subprocess.Popen([*command])

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_open, seconds=30)
        yield Collector(port, file)
    finally:
        process.kill()
        process.wait()
