"""The first deployment and the next ones, by what the files for deployment say.

Only addresses and ports are those of this machine.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from sqlalchemy import make_url

from tests.service.test_roles import PASSWORDS, bootstrap
from tests.service.test_runtimes import beside_migrations
from tests.support import manifests
from tests.support.edge import Balancer, balancer
from tests.support.manifests import Container
from tests.support.rendering import Answers
from tests.support.rollout import NEW, Deployed, Fleet, Load, assert_silent
from tests.support.servers import SERVERS, Redis, Server
from tests.support.service import PROGRAMS, Service, wait_until

pytestmark = pytest.mark.boot

# More than the buffers of the proxy hold, so that the export is still being written.
ROWS = 60_000
MANY = """
INSERT INTO orders (id, customer, status, created_at, updated_at)
SELECT gen_random_uuid(), 'many', 'new', now(), now() FROM generate_series(1, 60000)
"""


@pytest.fixture
def new_server() -> Iterator[Server]:
    """A server without the roles of the service."""
    with TemporaryDirectory() as folder, SERVERS["postgresql"](Path(folder)) as server:
        yield server


def urls_of(shop: Service, server: Server) -> tuple[str, str]:
    """Of the owner and of the service, by deploy/bootstrap.sql as it is written."""
    bootstrap(shop, server, "postgres")
    url = make_url(server.verified_of("shop"))
    owner, own = (
        url.set(username=role, password=PASSWORDS[role]).render_as_string(
            hide_password=False
        )
        for role in ("shop_owner", "shop")
    )
    return owner, own


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as redis:
        redis.start()
        yield redis


def run(job: Deployed) -> None:
    done = job.service.command(*job.container.command, **job.variables)
    assert done.returncode == 0, done.stderr
    assert not any(each in done.stdout + done.stderr for each in PASSWORDS.values())


def buy(edge: Balancer) -> str:
    """Create an order as the world does, and return its id."""
    with edge.client() as client:
        created = client.post("/orders", json=NEW)
        assert created.status_code == 201, created.text
        assert "strict-transport-security" in created.headers
        assert client.get("/metrics").status_code == 404
        forged = client.get("/orders", headers={"Host": "forged.example.com"})
        assert forged.status_code == 400
    return str(created.json()["id"])


class Cluster:
    """A namespace of Kubernetes, with the secrets that README.md creates."""

    def __init__(self, shop: Service, folder: Path, values: dict[str, str]) -> None:
        self.shop, self._pods = shop, manifests.in_kubernetes(shop.folder)
        readme = (shop.folder / "README.md").read_text()
        # Where a secret is mounted, as that is no folder of this machine.
        self._folder = folder
        for secret, files in re.findall(r" secret generic (\S+)(.*)", readme):
            (folder / secret).mkdir()
            for name, file in re.findall(r"--from-file=(\w+)=?(\w*)", files):
                (folder / secret / name).write_text(values[file or name])

    @property
    def host(self) -> str:
        overlay = self.shop.folder / "deploy" / "kubernetes" / "production"
        ingress = yaml.safe_load((overlay / "ingress.yaml").read_text())
        return str(ingress["spec"]["rules"][0]["host"])

    def pod(self, name: str) -> Deployed:
        container = self._pods[name]
        secret = container.mounts[container.variables["SECRETS_DIR"]]
        # The service has no login of the owner.
        assert secret == ("shop-migrate" if name == "shop-migrate" else "shop")
        variables = {"SECRETS_DIR": str(self._folder / secret)}
        # The ingress controller has an address of the cluster; this proxy has not.
        networks = container.variables["FORWARDED_ALLOW_IPS"]
        variables["FORWARDED_ALLOW_IPS"] = f"{networks},127.0.0.1"
        return Deployed(self.shop, container, variables)


@pytest.fixture
def cluster(
    rendered: Callable[[Answers], Service],
    new_server: Server,
    redis: Redis,
    tmp_path: Path,
) -> Cluster:
    answers = {"runtime": "kubernetes", "with_celery": True, "max_instances": 1}
    shop = rendered({"driver": "asyncpg", **answers})
    owner, own = urls_of(shop, new_server)
    values = {"OWNER_URL": owner, "DATABASE_URL": own, "CELERY_BROKER_URL": redis.url}
    cluster = Cluster(shop, tmp_path, values)
    run(cluster.pod("shop-migrate"))
    return cluster


@pytest.mark.parametrize(("number", "is_announced"), [(5, True), (1, False)])
def test_rollouts_on_kubernetes_lose_no_request(
    cluster: Cluster,
    new_server: Server,
    tmp_path: Path,
    number: int,
    is_announced: bool,  # noqa: FBT001
) -> None:
    """Without the preStop, in which the cluster learns of the end, some are lost."""
    new_server.on("shop").execute(MANY)
    with balancer(tmp_path, cluster.host) as edge, ExitStack() as stack:
        fleet = Fleet(cluster.pod("shop"), edge, stack, ROWS)
        buy(edge)
        with Load(edge) as load:
            for _ in range(number):
                fleet.roll(load, is_announced=is_announced)
        fleet.stop()

    assert (load.lost == []) is is_announced


def test_tasks_on_kubernetes_are_run_and_end_in_time(
    cluster: Cluster, tmp_path: Path
) -> None:
    with balancer(tmp_path, cluster.host) as edge, ExitStack() as stack:
        Fleet(cluster.pod("shop"), edge, stack)
        others = [
            (cluster.pod(name), stack.enter_context(cluster.pod(name).program(ready)))
            for name, ready in (("shop-worker", "ready."), ("shop-beat", "Starting"))
        ]
        with edge.client() as client:
            order = f"/orders/{buy(edge)}"
            assert client.post(f"{order}/pay").status_code == 202
            wait_until(lambda: client.get(order).json()["status"] == "paid")
        for pod, program in others:
            assert program.stop(pod.container.grace) == 0
            assert_silent(program)


def test_first_deployment_of_a_container(
    rendered: Callable[[Answers], Service], new_server: Server, tmp_path: Path
) -> None:
    """And the next one, with variables from the two files that README.md names."""
    shop = rendered({"driver": "asyncpg", "runtime": "container"})
    readme = (shop.folder / "README.md").read_text()
    (migration,) = re.findall(r"--env-file \.env\.migrate shop (.+?) +#", readme)
    (seconds,) = re.findall(r"give the container (\d+) s", readme)
    owner, own = urls_of(shop, new_server)
    host, image = "shop.example.com", manifests.image(shop.folder)

    def container(**file: str) -> Container:
        return replace(image, variables=image.variables | file)

    run(
        Deployed(
            shop, replace(container(DATABASE_URL=owner), command=migration.split())
        )
    )
    new_server.on("shop").execute(MANY)
    service = replace(
        container(DATABASE_URL=own, ALLOWED_HOSTS=host, DOCS="true"),
        ready="/readyz",
        grace=float(seconds),
    )
    with balancer(tmp_path, host) as edge, ExitStack() as stack:
        fleet = Fleet(Deployed(shop, service), edge, stack, ROWS)
        buy(edge)
        with edge.client() as client:
            assert client.get("/openapi.json").status_code == 200
        with Load(edge) as load:
            fleet.roll(load)
        fleet.stop()

    assert load.lost == []


def test_first_deployment_on_cloud_run(
    rendered: Callable[[Answers], Service], new_server: Server, tmp_path: Path
) -> None:
    """And the next one: the old instance is ended when no more requests are sent."""
    shop = rendered({"driver": "asyncpg", "runtime": "cloud_run"})
    owner, own = urls_of(shop, new_server)
    secrets = {"shop-database-url": own, "shop-migrate-database-url": owner}
    job, service = (
        Deployed(shop, manifests.on_cloud_run(shop.folder, file, secrets))
        for file in ("cloud-run-migrate.yaml", "cloud-run.yaml")
    )
    run(job)
    new_server.on("shop").execute(MANY)
    host = "shop-123.europe-west1.run.app"
    with balancer(tmp_path, host) as edge, ExitStack() as stack:
        fleet = Fleet(service, edge, stack, ROWS)
        buy(edge)
        with Load(edge) as load:
            fleet.roll(load)
        fleet.stop()

    assert load.lost == []


def test_first_deployment_on_lambda(
    rendered: Callable[[Answers], Service], new_server: Server, tmp_path: Path
) -> None:
    """The adapter starts `run.sh`, and passes requests on to its port.

    The configuration of a function names a secret, and has none.
    """
    shop = rendered({"driver": "asyncpg", "runtime": "lambda"})
    owner, own = urls_of(shop, new_server)
    secrets = {
        arn: json.dumps({"DATABASE_URL": url})
        for arn, url in (("arn:migration", owner), ("arn:service", own))
    }
    parameters = {
        "MigrationSecret": "arn:migration",
        "Secret": "arn:service",
        "AWS::Region": "eu-central-1",
        "AWS::URLSuffix": "amazonaws.com",
    }
    in_aws = {"PYTHONPATH": str(PROGRAMS / "aws"), "SECRETS": json.dumps(secrets)}
    migration, service = (
        manifests.on_lambda(shop.folder, name, parameters)
        for name in ("Migration", "Service")
    )
    module, function = migration.command[0].split(".")
    call = f"import {module}; {module}.{function}({{}}, None)"
    migration.command[:] = ["python", "-c", call]
    service.command[:] = [f"deploy/{service.command[0]}"]
    shown = f"{migration} {service}"
    assert not any(each in shown for each in PASSWORDS.values())
    with beside_migrations(shop):
        run(Deployed(shop, migration, in_aws))
    host = "abc.execute-api.eu-central-1.amazonaws.com"
    with balancer(tmp_path, host) as edge, ExitStack() as stack:
        fleet = Fleet(Deployed(shop, service, in_aws), edge, stack)
        buy(edge)
        fleet.stop()
