"""HAProxy with TLS in front of a service, as an ingress is."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trustme

from tests.support.service import free_port

CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 30s
    timeout http-request 1s
    option http-buffer-request
    option forwardfor

frontend public
    bind 127.0.0.1:{port} ssl crt {certificate}
    http-request set-header X-Forwarded-Proto https
    default_backend service

backend service
    server service 127.0.0.1:{service}
"""


@contextmanager
def haproxy(folder: Path, service: int) -> Iterator[tuple[str, Path]]:
    """The URL, whose certificate is for `localhost`, and the file of its authority."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if not program:
        raise RuntimeError("HAProxy is missing: `make servers` installs it.")
    authority, certificate = trustme.CA(), folder / "edge.pem"
    authority.cert_pem.write_to_path(folder / "edge-ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(
        CONFIGURATION.format(port=port, certificate=certificate, service=service)
    )
    process = subprocess.Popen([program, "-db", "-q", "-f", file])
    try:
        while True:
            assert process.poll() is None
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield f"https://localhost:{port}", folder / "edge-ca.pem"
    finally:
        process.kill()
        process.wait()
