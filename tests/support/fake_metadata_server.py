"""A metadata server that gives out tokens, as a platform has it on a local address."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "canary-of-the-platform"  # noqa: S105
GOOGLE = "/computeMetadata/v1"
LIFE_SECONDS = 3600


class Metadata:
    """An endpoint for Google and Azure alike, which counts the requests for a token."""

    def __init__(self, port: int) -> None:
        self.asked = 0
        self.is_silent = False
        self.ended = threading.Event()
        self.address = f"127.0.0.1:{port}"

    @property
    def variables(self) -> dict[str, str]:
        """Where the libraries of the vendors look for it."""
        return {
            "GCE_METADATA_HOST": self.address,
            "GCE_METADATA_IP": self.address,
            "IDENTITY_ENDPOINT": f"http://{self.address}/azure",
            "IDENTITY_HEADER": "header",
        }

    def answer(self, path: str) -> Any:
        if not path.startswith((f"{GOOGLE}/instance/service-accounts", "/azure")):
            return {"/": ""}.get(path, "googleapis.com")
        if "token" not in path and not path.startswith("/azure"):
            return {"email": "bearer@example.com", "scopes": []}
        self.asked += 1
        if self.is_silent:
            self.ended.wait()
        return {
            "access_token": TOKEN,
            "token_type": "Bearer",
            "expires_in": LIFE_SECONDS,
            "expires_on": str(int(time.time()) + LIFE_SECONDS),
            "resource": "database",
        }


@contextmanager
def metadata() -> Iterator[Metadata]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = known.answer(self.path)
            body = answer if isinstance(answer, str) else json.dumps(answer)
            kind = "text/plain" if isinstance(answer, str) else "application/json"
            self.send_response(200)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        known = Metadata(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield known
        finally:
            known.ended.set()
            server.shutdown()
            thread.join()
