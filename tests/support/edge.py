"""HAProxy with TLS in front of a service, as an ingress is."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trustme

from tests.support.service import free_port

CONFIGURATION = """
global
    stats socket {folder}/console level admin
    stats timeout 1m

defaults
    mode http
    timeout connect 2s
    timeout client {seconds}s
    timeout server 30s
    retries 0
{options}

frontend public
    bind 127.0.0.1:{port} ssl crt {folder}/edge.pem
    http-request set-header X-Forwarded-Proto https
    default_backend service

backend service
    option forwardfor
"""
# A slow client does not reach the service.
BUFFERED = """
    timeout http-request 1s
    option http-buffer-request
"""


@contextmanager
def haproxy(folder: Path, service: int) -> Iterator[tuple[str, Path]]:
    """The URL, whose certificate is for `localhost`, and the file of its authority."""
    with _running(folder, f"server service 127.0.0.1:{service}", 10, BUFFERED) as url:
        yield url, folder / "edge-ca.pem"


@dataclass(frozen=True)
class Balancer:
    """A proxy that knows of instances what the cluster tells it: who gets requests."""

    url: str
    folder: Path
    host: str
    _places: list[int] = field(default_factory=list)
    _used: list[int] = field(default_factory=list)

    def place(self) -> int:
        """The port of one more instance, which gets no requests yet."""
        self._used.append(self._places.pop())
        return self._used[-1]

    def admit(self, place: int) -> None:
        self._ask(f"set server service/{place} state ready")

    def drain(self, place: int) -> None:
        """No more requests from now on; those in progress go on."""
        self._ask(f"set server service/{place} state drain")

    def client(self) -> httpx.Client:
        """One of the world, which trusts the authority of the certificate."""
        trusted = ssl.create_default_context(cafile=self.folder / "edge-ca.pem")
        return httpx.Client(
            base_url=self.url, verify=trusted, timeout=30, headers={"Host": self.host}
        )

    def _ask(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.folder / "console"))
            console.sendall(f"{command}\n".encode())
            answer = console.recv(10_000).decode().strip()
        assert answer == "", answer


@contextmanager
def balancer(folder: Path, host: str, places: int = 8) -> Iterator[Balancer]:
    """A proxy without an instance, for a service whose public name is `host`."""
    ports = [free_port() for _ in range(places)]
    servers = [f"server {port} 127.0.0.1:{port} disabled" for port in ports]
    with _running(folder, "\n    ".join(servers), 60) as url:
        yield Balancer(url, folder, host, ports)


@contextmanager
def _running(
    folder: Path, servers: str, seconds: int, options: str = ""
) -> Iterator[str]:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if not program:
        raise RuntimeError("HAProxy is missing: `make servers` installs it.")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "edge-ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "edge.pem")
    port = free_port()
    text = CONFIGURATION.format(
        folder=folder, port=port, seconds=seconds, options=options
    )
    file = folder / "haproxy.cfg"
    file.write_text(f"{text}    {servers}\n")
    process = subprocess.Popen([program, "-db", "-q", "-f", file])
    try:
        while True:
            assert process.poll() is None
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield f"https://localhost:{port}"
    finally:
        process.kill()
        process.wait()
