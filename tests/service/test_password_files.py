"""A password in a file that changes is used at the next connect, without a restart."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from sqlalchemy import make_url

from tests.service.test_login import set_password, url_of
from tests.support.rendering import Answers
from tests.support.servers import NETWORKED_ON, Redis, Server
from tests.support.service import ORDER, Running, Service, wait_until

pytestmark = pytest.mark.boot

FIRST, SECOND = "first-canary", "second@canary"
READ = "return path.read_text().strip()"


class Secrets:
    """A folder in the place of /run/secrets, and the variables that name it."""

    def __init__(self, shop: Service, folder: Path) -> None:
        self.shop, self.folder = shop, folder / "secrets"
        self.folder.mkdir()
        self.variables = {"SECRETS_DIR": str(self.folder)}

    def keep(self) -> None:
        """Let the service read no file again after its start."""
        self.variables["PYTHONPATH"] = self.shop.changed(
            *(self.folder.parent / "src", "db/config/secret_file.py"),
            *(READ, 'return ""'),
        )

    def write(self, variable: str, url: str, password: str) -> None:
        """As the platform does: the file is replaced as a whole."""
        new = self.folder / "new"
        new.write_text(url.replace("@", f":{quote_plus(password)}@", 1) + "\n")
        new.rename(self.folder / variable)


def cut_off(server: Server) -> None:
    """End the sessions of the service, which has to log in again."""
    if make_url(server.url).get_backend_name() == "postgresql":
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = 'bearer'"
        )
        return
    for row in server.execute("SHOW PROCESSLIST"):
        if row["User"] == "bearer":
            server.execute(f"KILL {row['Id']}")


def is_served(running: Running) -> bool:
    return running.client.post("/orders", json=ORDER).status_code == 201


def paid(running: Running) -> None:
    """Pay a new order by a task."""
    order = f"/orders/{running.client.post('/orders', json=ORDER).json()['id']}"
    assert running.client.post(f"{order}/pay").status_code == 202
    wait_until(lambda: running.client.get(order).json()["status"] == "paid", seconds=60)


def rotate(
    shop: Service, server: Server, secrets: Secrets, after: Callable[[Running], None]
) -> None:
    """Change the password under a service, and end its sessions."""
    url = url_of(server, f"rotation_{secrets.folder.parent.name.lower()}")
    set_password(server, FIRST)
    secrets.write("DATABASE_URL", url, FIRST)
    shop.migrate(**secrets.variables)
    with shop.running(**secrets.variables) as running:
        assert is_served(running)
        set_password(server, SECOND)
        secrets.write("DATABASE_URL", url, SECOND)
        assert is_served(running), "the connections that are open stay"
        cut_off(server)
        after(running)
    log = running.log.read_text()
    assert FIRST not in log
    assert SECOND not in log


@pytest.mark.parametrize(("driver", "name"), NETWORKED_ON)
def test_service_goes_on_after_its_password_has_changed(
    service: Callable[[str], Service],
    server_of: Callable[..., Server],
    tmp_path: Path,
    driver: str,
    name: str,
) -> None:
    def goes_on(running: Running) -> None:
        wait_until(lambda: is_served(running))
        assert all(is_served(running) for _ in range(10))

    shop = service(driver)
    rotate(shop, server_of(driver, name), Secrets(shop, tmp_path), goes_on)


def test_service_that_keeps_the_password_of_its_start_serves_no_more(
    service: Callable[[str], Service], server: Server, tmp_path: Path
) -> None:
    def is_out(running: Running) -> None:
        assert not any(is_served(running) for _ in range(10))

    shop = service("asyncpg")
    secrets = Secrets(shop, tmp_path)
    secrets.keep()
    rotate(shop, server, secrets, is_out)


def test_each_server_has_the_password_of_its_own_url(
    routed: Callable[[str], Service], tmp_path: Path
) -> None:
    """A variable comes before a file of its name, and a URL without one has that of
    DATABASE_URL.
    """
    shop = routed("asyncpg")
    secrets = Secrets(shop, tmp_path)
    urls = (
        "//reader:first-10@db10,//reader:first-1@db1,//db2,//a:first-a@[::1]/x,"
        "//b:first-b@[::1]/y,//a:first-c@db3/x?port=6432,//b:first-d@db3/y?port=6432"
    )
    own_ones = ["10", "1", None, "a", "b", "c", "d"]
    replicas = secrets.folder / "DATABASE_REPLICA_URLS"
    replicas.write_text(urls.replace("//", "postgresql://"))
    own = secrets.folder / "database_password"
    own.write_text("first-own")
    name = {"DATABASE_USER": "app", "DATABASE_HOST": "db0", "DATABASE_NAME": "shop"}

    def passwords(file: Path, **variables: str) -> list[str]:
        variables |= secrets.variables | name
        done = shop.program("rotated_passwords", str(file), **variables)
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found

    def expected(primary: str, replica: str) -> list[str]:
        found = [f"{replica}-{each}" if each else primary for each in own_ones]
        return [primary, *found]

    kept = passwords(own, DATABASE_PASSWORD="kept")  # noqa: S106
    assert kept == expected("kept", "first")
    own.write_text("first-own")
    assert passwords(own) == expected("second-own", "first")
    assert passwords(replicas) == expected("second-own", "second")


@pytest.mark.parametrize("is_read", [True, False])
def test_worker_goes_on_after_its_passwords_have_changed(
    rendered: Callable[[Answers], Service],
    server: Server,
    tmp_path: Path,
    is_read: bool,  # noqa: FBT001
) -> None:
    """Those of the database and of the broker, for who publishes, too."""
    shop = rendered({"driver": "asyncpg", "with_celery": True})
    secrets = Secrets(shop, tmp_path)
    if not is_read:
        secrets.keep()
    url = url_of(server, f"rotation_{tmp_path.name.lower()}")
    with Redis(tmp_path / "redis", "--requirepass", FIRST) as redis:
        redis.start()
        broker = redis.url.replace("://", "://@")
        set_password(server, FIRST)
        secrets.write("DATABASE_URL", url, FIRST)
        secrets.write("CELERY_BROKER_URL", broker, FIRST)
        variables = secrets.variables
        shop.migrate(**variables)
        with shop.running(**variables) as running, shop.working(**variables) as worker:
            paid(running)
            set_password(server, SECOND)
            secrets.write("DATABASE_URL", url, SECOND)
            secrets.write("CELERY_BROKER_URL", broker, SECOND)
            with redis.console() as ask:
                for command in (
                    f"AUTH {FIRST}",
                    f"CONFIG SET requirepass {SECOND}",
                    "CLIENT KILL TYPE normal SKIPME yes",
                ):
                    assert "ERR" not in ask(command)
            cut_off(server)
            if is_read:
                wait_until(lambda: is_served(running))
                paid(running)
            else:
                worker.wait_for_log("invalid username-password pair")
    log = running.log.read_text() + worker.log.read_text()
    assert FIRST not in log
    assert SECOND not in log
