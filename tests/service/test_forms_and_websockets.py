"""Forms and WebSockets under gunicorn, with the libraries that the README adds."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.servers import Server
from tests.support.service import PROGRAMS, Running, Service, wait_until

pytestmark = pytest.mark.boot

LIBRARIES = ("python-multipart", "websockets")
LIMIT, LARGE = 1_000_000, 2_000_000  # bytes of a body: of each route, of `/large`
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--x--\r\n"


@dataclass(frozen=True)
class Grown:
    """A service to which both libraries were added."""

    shop: Service
    running: Running
    variables: dict[str, str]

    def upload(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        return self.running.client.post(path, content=content, headers=FORM | headers)


@pytest.fixture(scope="module")
def grown(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Grown]:
    shop, folder = service("asyncpg"), tmp_path_factory.mktemp("libraries")
    done = shop.command("uv", "pip", "install", f"--target={folder}", *LIBRARIES)
    assert done.returncode == 0, done.stderr
    variables = {
        "DATABASE_URL": server_of("asyncpg").url,
        "PYTHONPATH": f"{folder}:{PROGRAMS}",
        "WEB_CONCURRENCY": "1",
    }
    app = "service_with_forms_and_websockets:create_app()"
    # Not by a fork: Starlette looks for the parser of forms when it is imported.
    start = shop.start_command
    with shop.running(app, command=start, **variables) as running:
        yield Grown(shop, running, variables)


@pytest.mark.parametrize(("path", "limit"), [("/upload", LIMIT), ("/large", LARGE)])
def test_form_has_the_limit_of_its_route(grown: Grown, path: str, limit: int) -> None:
    size = limit - len(HEAD + END)
    whole = grown.upload(path, HEAD + b"x" * size + END)
    declared = grown.upload(path, HEAD + b"x" * (size + 1) + END)
    with_chunks = grown.running.client.post(
        path, content=iter([HEAD, b"x" * size, b"x", END]), headers=FORM
    )

    assert (whole.status_code, whole.json()) == (200, size)
    for answer in (declared, with_chunks):
        assert answer.status_code == answer.json()["status"] == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (HEAD.replace(b"--x", b"--y") + END, 400),  # not the boundary of the header
        (HEAD + b"x", 422),  # ends within the file
        (END, 422),
    ],
)
def test_form_that_is_broken_is_a_problem_of_its_client(
    grown: Grown, body: bytes, status: int
) -> None:
    answer = grown.upload("/upload", body)

    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_websocket_of_a_write_gives_back_its_connection_however_it_ends(
    grown: Grown,
) -> None:
    url = str(grown.running.client.base_url)
    done = grown.shop.program("websocket_clients", url, **grown.variables)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "close": [1, 1000],
        "leave": [1, None],
        "fail": [1, 1011],
        "exceed": [1, 1009],
    }
    wait_until(lambda: grown.running.client.get("/checked-out").json() == 0)
    assert grown.running.log.read_text().count('"ERROR"') == 1
