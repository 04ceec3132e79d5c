"""Files for deployment agree with the answers, and their times with each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.rendering import Answers, render

FLEET = {"max_instances": 7}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads over the functions of CloudFormation."""


_Loader.add_multi_constructor("!", lambda *_: None)


def described(
    template: Path, folder: Path, file: str, answers: Answers
) -> dict[str, Any]:
    """The documents of a file by their kind."""
    project = render(template, folder / "shop", answers)
    documents = yaml.load_all((project / "deploy" / file).read_text(), _Loader)
    return {document.get("kind"): document for document in documents}


def test_kubernetes_runs_as_many_pods_as_there_are_connections_for(
    template: Path, tmp_path: Path
) -> None:
    answers = FLEET | {"runtime": "kubernetes", "workers_per_instance": 3}
    kinds = described(template, tmp_path, "kubernetes.yaml", answers)

    deployment = kinds["Deployment"]["spec"]
    assert "replicas" not in deployment, "it would undo what the autoscaler does"
    assert kinds["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 7
    assert kinds["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2
    # What hooks/sizing.jinja counts on.
    assert deployment["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    assert deployment["minReadySeconds"] == 10
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": 3, "memory": "768Mi"}


def test_pod_is_given_the_time_that_it_takes_to_stop(
    template: Path, tmp_path: Path
) -> None:
    kinds = described(template, tmp_path, "kubernetes.yaml", {"runtime": "kubernetes"})

    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    config = (tmp_path / "shop" / "gunicorn.conf.py").read_text()
    (drain,) = re.findall(r"^graceful_timeout = (\d+)$", config, re.MULTILINE)
    assert pause + int(drain) < pod["terminationGracePeriodSeconds"] == 45


def test_worker_is_given_the_time_that_it_takes_to_stop(
    template: Path, tmp_path: Path
) -> None:
    answers = {"runtime": "kubernetes", "with_celery": True, "celery_instances": 3}
    project = render(template, tmp_path / "shop", answers)
    documents = yaml.safe_load_all((project / "deploy/kubernetes.yaml").read_text())
    deployments = {
        document["metadata"]["name"]: document["spec"]
        for document in documents
        if document["kind"] == "Deployment"
    }

    assert deployments.keys() == {"shop", "shop-worker", "shop-beat"}
    assert deployments["shop-worker"]["replicas"] == 3
    assert deployments["shop-beat"]["replicas"] == 1
    settings = (project / "src" / "shop" / "worker" / "settings.py").read_text()
    (drain,) = re.findall(r"celery_shutdown_seconds: .*default=(\d+)", settings)
    (rollback,) = re.findall(r"^ROLLBACK_SECONDS = (\d+)$", settings, re.MULTILINE)
    pod = deployments["shop-worker"]["template"]["spec"]
    assert int(drain) + int(rollback) < pod["terminationGracePeriodSeconds"] == 45


def test_single_pod_may_be_all_there_is(template: Path, tmp_path: Path) -> None:
    answers = {"runtime": "kubernetes", "max_instances": 1}
    kinds = described(template, tmp_path, "kubernetes.yaml", answers)

    assert kinds["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 1
    assert kinds["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 1


def test_cloud_run_starts_as_many_instances_as_there_are_connections_for(
    template: Path, tmp_path: Path
) -> None:
    answers = FLEET | {"runtime": "cloud_run", "cloud": "gcp_cloud_sql"}
    kinds = described(template, tmp_path, "cloud-run.yaml", answers)

    revision = kinds["Service"]["spec"]["template"]
    annotations = revision["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/maxScale"] == "7"
    budget = (tmp_path / "shop" / "src" / "shop" / "db" / "budget.py").read_text()
    (pool_size,) = re.findall(r"^POOL_SIZE = (\d+)$", budget, re.MULTILINE)
    assert revision["spec"]["containerConcurrency"] == 4 * int(pool_size)


def test_lambda_reserves_as_many_functions_as_there_are_connections_for(
    template: Path, tmp_path: Path
) -> None:
    answers = FLEET | {"runtime": "lambda"}
    (document,) = described(template, tmp_path, "template.yaml", answers).values()

    resources = document["Resources"]
    assert resources["Service"]["Properties"]["ReservedConcurrentExecutions"] == 7
    assert resources["Migration"]["Properties"]["ReservedConcurrentExecutions"] == 1
    # It would open a second connection at each start.
    variables = resources["Service"]["Properties"]["Environment"]["Variables"]
    assert variables["DATABASE_BUDGET_CHECK"] == "off"


@pytest.mark.parametrize(
    ("runtime", "found"),
    [
        ("container", set()),
        ("kubernetes", {"kubernetes.yaml", "kubernetes-migrate.yaml"}),
        ("cloud_run", {"cloud-run.yaml", "cloud-run-migrate.yaml"}),
        ("lambda", {"template.yaml", "run.sh", "migrate.py"}),
    ],
)
def test_one_runtime_is_described(
    template: Path, tmp_path: Path, runtime: str, found: set[str]
) -> None:
    project = render(template, tmp_path / "shop", {"runtime": runtime})

    assert {path.name for path in project.glob("deploy/*")} == found
    assert (project / "deploy").exists() is bool(found)
