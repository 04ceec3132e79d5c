"""Files for deployment agree with the answers, and their times with each other."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import manifests
from tests.support.rendering import Answers, Render, render

FLEET = {"max_instances": 7}
# That of the image, on which CI tests as well.
PYTHON = "3.14"
APPLY = "kubectl apply -k deploy/kubernetes/production"
# Documents of Kubernetes, by kind and name.
Found = dict[tuple[str, str], dict[str, Any]]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads over the functions of CloudFormation."""


_Loader.add_multi_constructor("!", lambda *_: None)


def described(
    quickly: Render, folder: Path, file: str, answers: Answers
) -> dict[str, Any]:
    """The documents of a file by their kind."""
    project = quickly(folder / "shop", answers)
    documents = yaml.load_all((project / "deploy" / file).read_text(), _Loader)
    return {document.get("kind"): document for document in documents}


def in_cluster(quickly: Render, folder: Path, answers: Answers) -> Found:
    """What Kubernetes gets, by kind and name: the files that the base lists."""
    answers = {"runtime": "kubernetes", "project_name": "shop"} | answers
    base = quickly(folder / "shop", answers) / "deploy" / "kubernetes" / "base"
    listed = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    apart = {"kustomization.yaml"}
    assert set(listed) == {each.name for each in base.glob("*.yaml")} - apart
    return {
        (document["kind"], document["metadata"]["name"]): document
        for file in listed
        for document in yaml.safe_load_all((base / file).read_text())
    }


def pods(found: Found) -> dict[str, dict[str, Any]]:
    """The specification of each kind of pod, by its owner's name."""
    return {
        name: document["spec"]["template"]["spec"]
        for (kind, name), document in found.items()
        if kind in {"Deployment", "Job", "StatefulSet"}
    }


def test_kubernetes_runs_as_many_pods_as_there_are_connections_for(
    quickly: Render, tmp_path: Path
) -> None:
    found = in_cluster(quickly, tmp_path, FLEET | {"workers_per_instance": 3})

    deployment = found["Deployment", "shop"]["spec"]
    assert "replicas" not in deployment, "it would undo what the autoscaler does"
    autoscaler = found["HorizontalPodAutoscaler", "shop"]["spec"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 7)
    # What hooks/sizing.jinja counts on.
    assert deployment["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    assert deployment["minReadySeconds"] == 10
    (container,) = deployment["template"]["spec"]["containers"]
    # Nodes keep about a tenth of their CPUs: 2 whole ones would fit no node of two.
    requests = container["resources"]["requests"]
    assert requests == {"cpu": "2700m", "memory": "768Mi"}


def test_pod_is_given_the_time_that_it_takes_to_stop(
    quickly: Render, tmp_path: Path
) -> None:
    pod = pods(in_cluster(quickly, tmp_path, {}))["shop"]

    (container,) = pod["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    config = (tmp_path / "shop" / "gunicorn.conf.py").read_text()
    (drain,) = re.findall(r"^graceful_timeout = (\d+)$", config, re.MULTILINE)
    assert pause + int(drain) < pod["terminationGracePeriodSeconds"] == 45


def test_containers_of_compose_are_given_the_time_of_pods(
    quickly: Render, tmp_path: Path
) -> None:
    answers = {"runtime": "kubernetes", "with_celery": True}
    found = pods(in_cluster(quickly, tmp_path, answers))

    text = (tmp_path / "shop" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    for name, pod in (("service", "shop"), ("worker", "shop-worker")):
        seconds = found[pod]["terminationGracePeriodSeconds"]
        assert services[name]["stop_grace_period"] == f"{seconds}s"


@pytest.mark.parametrize(("workers", "autoscaled"), [(2, False), (3, True)])
def test_worker_is_given_the_time_that_it_takes_to_stop(
    quickly: Render,
    tmp_path: Path,
    workers: int,
    autoscaled: bool,  # noqa: FBT001
) -> None:
    answers = {"with_celery": True, "celery_instances": workers}
    found = in_cluster(quickly, tmp_path, answers)

    assert pods(found).keys() == {"shop", "shop-migrate", "shop-worker", "shop-beat"}
    deployment = found["Deployment", "shop-worker"]["spec"]
    if autoscaled:
        assert "replicas" not in deployment
        autoscaler = found["HorizontalPodAutoscaler", "shop-worker"]["spec"]
        assert autoscaler["maxReplicas"] == workers
    else:
        assert deployment["replicas"] == workers
        assert ("HorizontalPodAutoscaler", "shop-worker") not in found
    assert found["Deployment", "shop-beat"]["spec"]["replicas"] == 1
    settings = tmp_path / "shop" / "src" / "shop" / "worker" / "settings.py"
    text = settings.read_text()
    (drain,) = re.findall(r"celery_shutdown_seconds: .*default=(\d+)", text)
    (rollback,) = re.findall(r"^ROLLBACK_SECONDS = (\d+)$", text, re.MULTILINE)
    pod = pods(found)["shop-worker"]
    assert int(drain) + int(rollback) < pod["terminationGracePeriodSeconds"] == 45


@pytest.mark.parametrize("number", [1, 2])
def test_autoscaler_is_left_out_where_it_could_not_scale(
    quickly: Render, tmp_path: Path, number: int
) -> None:
    found = in_cluster(quickly, tmp_path, {"max_instances": number})

    assert ("HorizontalPodAutoscaler", "shop") not in found
    assert found["Deployment", "shop"]["spec"]["replicas"] == number


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("everything")


@pytest.fixture(scope="module")
def everything(quickly: Render, folder: Path) -> Found:
    answers = {"pooler": "transaction", "with_replicas": True, "with_celery": True}
    return in_cluster(quickly, folder, answers)


def test_pods_are_given_nothing_that_they_do_not_need(everything: Found) -> None:
    """Variables of other services, such as DATABASE_PORT, would stop the start."""
    described = pods(everything)

    assert len(described) == 5
    for pod in described.values():
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "memory" in container["resources"]["limits"]
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]
        # EKS and Azure mount tokens below /var/run/secrets, which is /run/secrets: no
        # folder could be made for them in a volume that is read only.
        mounts = [each["mountPath"] for each in container["volumeMounts"]]
        assert not {"/run", "/run/secrets", "/var/run", "/var/run/secrets"} & {*mounts}
        for each in container.get("env", []):
            assert each == {"name": "SECRETS_DIR", "value": "/run/settings"}
            assert each["value"] in mounts


def test_all_that_has_two_pods_is_spread_and_protected(everything: Found) -> None:
    for name in ("shop", "shop-worker", "shop-pgbouncer"):
        kind = "StatefulSet" if name == "shop-pgbouncer" else "Deployment"
        labels = everything[kind, name]["spec"]["selector"]["matchLabels"]
        pod = pods(everything)[name]
        places = pod["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in places] == [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        ]
        assert all(each["labelSelector"]["matchLabels"] == labels for each in places)
        budget = everything["PodDisruptionBudget", name]["spec"]
        assert budget["selector"]["matchLabels"] == labels


def test_longest_name_fits_all_that_is_named_after_it(
    quickly: Render, tmp_path: Path
) -> None:
    """Services, jobs and labels have 63 letters at most; the questionnaire has 53."""
    answers = {"project_name": "s" * 53, "pooler": "transaction", "with_celery": True}
    found = in_cluster(quickly, tmp_path, answers)

    names = [name for kind, name in found if kind in {"Service", "Job"}]
    labels = [
        label
        for document in found.values()
        for label in document["metadata"].get("labels", {}).values()
    ]
    assert max(map(len, names)) == 63
    assert max(map(len, labels)) <= 63
    # Kubernetes gives a label to its pods that has a hyphen and a hash of ten more.
    (stateful,) = [name for kind, name in found if kind == "StatefulSet"]
    assert len(stateful) + 11 <= 63
    readme = (tmp_path / "shop" / "README.md").read_text()
    assert set(re.findall(r"rollout restart (\S+)`", readme)) == {
        f"statefulset/{stateful}"
    }


def test_pods_of_pgbouncer_share_its_budget(everything: Found, folder: Path) -> None:
    """A StatefulSet starts the successor of a pod when the pod has ended.

    A Deployment would not wait: while two pods end, there would be four.
    """
    pair = everything["StatefulSet", "shop-pgbouncer"]["spec"]
    assert (pair["replicas"], pair["podManagementPolicy"]) == (2, "Parallel")
    assert ("Service", pair["serviceName"]) in everything
    ini = folder / "shop" / "deploy" / "kubernetes" / "base" / "pgbouncer.ini"
    text = ini.read_text()
    (each,) = re.findall(r"^max_db_connections = (\d+)$", text, re.MULTILINE)
    (all_of_them,) = re.findall(r"may open (\d+)", text)
    assert int(each) * pair["replicas"] <= int(all_of_them)
    # A third entry for the same server keeps the sum of two.
    readme = (folder / "shop" / "README.md").read_text()
    (third,) = re.findall(r"`pool_size=(\d+) max_db_connections=\1` into each", readme)
    assert 0 < 3 * int(third) <= 2 * int(each)
    pod = pair["template"]["spec"]
    (hook,) = [each["lifecycle"]["preStop"]["exec"] for each in pod["containers"]]
    (pause,) = re.findall(r"^sleep (\d+); kill -INT 1;", hook["command"][-1])
    assert int(pause) + 20 == pod["terminationGracePeriodSeconds"]


def test_network_policies_close_what_is_not_named(everything: Found) -> None:
    policy = everything["NetworkPolicy", "shop"]["spec"]
    all_pods = {"app.kubernetes.io/part-of": "shop"}
    assert policy["podSelector"]["matchLabels"] == all_pods
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    ports = {each["port"] for rule in policy["egress"] for each in rule["ports"]}
    assert ports == {53, 5432, 6379, 6432}
    # Names are answered by caches, too, of a node or of a cloud: these are no pods.
    (names,) = [
        it for it in policy["egress"] if {"port": 53, "protocol": "UDP"} in it["ports"]
    ]
    assert "to" not in names
    for (kind, _), document in everything.items():
        if kind not in {"Deployment", "Job", "StatefulSet"}:
            continue
        labels = document["spec"]["template"]["metadata"]["labels"]
        assert all_pods.items() <= labels.items(), "no policy would select it"


def pods_with(**labels: str) -> dict[str, Any]:
    """A selector of pods by standard labels, as `part_of="shop"`."""
    prefix = "app.kubernetes.io/"
    names = {prefix + key.replace("_", "-"): value for key, value in labels.items()}
    return {"podSelector": {"matchLabels": names}}


def namespace(name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/metadata.name": name}
    return {"namespaceSelector": {"matchLabels": labels}}


@pytest.mark.parametrize(
    ("name", "selected", "client", "port"),
    [
        ("requests", pods_with(name="shop"), namespace("ingress-nginx"), "http"),
        ("metrics", pods_with(part_of="shop"), namespace("monitoring"), "metrics"),
        (
            "pgbouncer",
            pods_with(name="shop-pgbouncer"),
            pods_with(part_of="shop"),
            6432,
        ),
    ],
    ids=["requests", "metrics", "pgbouncer"],
)
def test_network_policy_lets_in_one_kind_of_client(
    everything: Found,
    name: str,
    selected: dict[str, Any],
    client: dict[str, Any],
    port: str | int,
) -> None:
    """A rule without `from` would let in every pod of the cluster."""
    assert everything["NetworkPolicy", f"shop-{name}"]["spec"] == {
        **selected,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [client], "ports": [{"port": port}]}],
    }


@pytest.mark.parametrize(
    ("answers", "ports"),
    [
        ({"cloud": "azure", "pooler": "transaction"}, {6432}),
        ({"cloud": "supabase", "pooler": "transaction"}, {6543}),
        ({"cloud": "gcp_cloud_sql", "auth": "token"}, {443, 80, 988}),
    ],
)
def test_network_policy_lets_out_what_the_cloud_asks_for(
    quickly: Render, tmp_path: Path, answers: Answers, ports: set[int]
) -> None:
    """Its pooler, and what gives an identity to a pod."""
    found = in_cluster(quickly, tmp_path, answers)

    rules = found["NetworkPolicy", "shop"]["spec"]["egress"]
    found_ports = {each["port"] for rule in rules for each in rule["ports"]}
    assert found_ports == ports | {53, 5432}


@pytest.mark.parametrize(
    ("cloud", "annotation", "labels"),
    [
        ("aws_rds", "eks.amazonaws.com/role-arn", {}),
        ("gcp_cloud_sql", "iam.gke.io/gcp-service-account", {}),
        (
            "azure",
            "azure.workload.identity/client-id",
            {"azure.workload.identity/use": "true"},
        ),
    ],
)
def test_pods_that_log_in_by_a_token_have_an_identity_of_the_cloud(
    quickly: Render, tmp_path: Path, cloud: str, annotation: str, labels: dict[str, str]
) -> None:
    """Of the service, and of the migration, which is another user of the database."""
    answers = {"cloud": cloud, "auth": "token", "with_celery": True}
    found = in_cluster(quickly, tmp_path, answers)

    overlay = tmp_path / "shop" / "deploy" / "kubernetes" / "production"
    text = (overlay / "kustomization.yaml").read_text()
    named = {
        account["metadata"]["name"]: account["metadata"]["annotations"][annotation]
        for patch in yaml.safe_load(text)["patches"]
        if (account := yaml.safe_load(patch["patch"]))["kind"] == "ServiceAccount"
    }
    assert {name for kind, name in found if kind == "ServiceAccount"} == named.keys()
    assert all(named.values())
    for (kind, name), document in found.items():
        if kind not in {"Deployment", "Job"}:
            continue
        pod = document["spec"]["template"]
        own = "shop-migrate" if name == "shop-migrate" else "shop"
        assert pod["spec"]["serviceAccountName"] == own
        assert labels.items() <= pod["metadata"]["labels"].items()


def test_overlay_is_written_once(
    template: Path, everything: Found, folder: Path
) -> None:
    overlay = folder / "shop" / "deploy" / "kubernetes" / "production"

    described = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    assert described["resources"] == ["../base", "ingress.yaml"]
    # The hosts of PgBouncer, where the base includes them.
    base = (overlay.parent / "base" / "pgbouncer.ini").read_text()
    (included,) = re.findall(r"^%include (\S+)$", base, re.MULTILINE)
    pod = pods(everything)["shop-pgbouncer"]
    (mount,) = [
        each
        for each in pod["containers"][0]["volumeMounts"]
        if each["mountPath"] == included
    ]
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    generated = {each["name"]: each for each in described["configMapGenerator"]}
    assert generated[volume["configMap"]["name"]]["files"] == [mount["subPath"]]
    assert (overlay / mount["subPath"]).exists()
    images = {
        container["image"]
        for pod in pods(everything).values()
        for container in pod["containers"]
    }
    assert {each["name"] for each in described["images"]} == images
    skipped = yaml.safe_load_all((template / "copier.yml").read_text().split("---")[0])
    assert "/deploy/kubernetes/production/*" in next(skipped)["_skip_if_exists"]


def test_release_ends_at_once_when_its_migration_has_failed(
    everything: Found, folder: Path
) -> None:
    """A wait for `complete` alone would go on for an hour: the job is `failed`."""
    readme = (folder / "shop" / "README.md").read_text()

    waits = re.findall(r"wait --for=(\S+) --timeout=(\w+) (\S+)(.*)", readme)
    job = f"job/{next(name for kind, name in everything if kind == 'Job')}"
    assert waits == [
        ("jsonpath='{.status.conditions[0].status}'=True", "1h", job, ""),
        ("condition=complete", "10s", job, f" && {APPLY}"),
    ]


def test_cloud_run_starts_as_many_instances_as_there_are_connections_for(
    quickly: Render, tmp_path: Path
) -> None:
    answers = FLEET | {"runtime": "cloud_run", "cloud": "gcp_cloud_sql"}
    kinds = described(quickly, tmp_path, "cloud-run.yaml", answers)

    service = kinds["Service"]["metadata"]["annotations"]
    assert service["run.googleapis.com/maxScale"] == "7", "of all its revisions"
    revision = kinds["Service"]["spec"]["template"]
    annotations = revision["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/maxScale"] == "7"
    budget = (tmp_path / "shop" / "src" / "shop" / "db" / "budget.py").read_text()
    (pool_size,) = re.findall(r"^POOL_SIZE = (\d+)$", budget, re.MULTILINE)
    assert revision["spec"]["containerConcurrency"] == 4 * int(pool_size)


def test_each_url_of_the_answers_reaches_cloud_run(
    quickly: Render, tmp_path: Path
) -> None:
    """By secrets that README.md creates: else reads would go to the primary."""
    answers = {"runtime": "cloud_run", "pooler": "transaction", "with_replicas": True}
    project = quickly(tmp_path / "shop", answers)

    readme = (project / "README.md").read_text()
    created = re.findall(r"gcloud secrets create (\S+)", readme)
    secrets = {name: name for name in created}
    given = {
        name: manifests.on_cloud_run(project, name, secrets).variables
        for name in ("cloud-run.yaml", "cloud-run-migrate.yaml")
    }
    names = {"DATABASE_URL", "DATABASE_DIRECT_URL", "DATABASE_REPLICA_URLS"}
    assert names <= given["cloud-run.yaml"].keys()
    assert names - {"DATABASE_REPLICA_URLS"} <= given["cloud-run-migrate.yaml"].keys()
    used = {
        name: {value for value in each.values() if value in secrets}
        for name, each in given.items()
    }
    assert set(created) == set().union(*used.values())
    # Each account may read its own, so the service has no login of the owner.
    allowed = [
        (secret.replace("$secret", each), account)
        for names, secret, account in re.findall(
            r"(?:for secret in (.+); do )?gcloud secrets add-iam-policy-binding (\S+)"
            r" --role=roles/secretmanager.secretAccessor"
            r" --member=serviceAccount:([^\s;]+)",
            readme,
        )
        for each in names.split() or [""]
    ]
    for name, read in used.items():
        text = (project / "deploy" / name).read_text()
        (account,) = re.findall(r"serviceAccountName: (\S+)", text)
        assert {secret for secret, reader in allowed if reader == account} == read


def test_longest_name_fits_the_job_of_cloud_run(
    quickly: Render, tmp_path: Path
) -> None:
    """Services and jobs have 49 letters at most; the questionnaire has 41."""
    answers = {"project_name": "s" * 41, "runtime": "cloud_run"}
    kinds = described(quickly, tmp_path, "cloud-run-migrate.yaml", answers)

    assert len(kinds["Job"]["metadata"]["name"]) == 49


def test_lambda_reserves_as_many_functions_as_there_are_connections_for(
    quickly: Render, tmp_path: Path
) -> None:
    answers = FLEET | {"runtime": "lambda"}
    (document,) = described(quickly, tmp_path, "template.yaml", answers).values()

    resources = document["Resources"]
    assert resources["Service"]["Properties"]["ReservedConcurrentExecutions"] == 7
    assert resources["Service"]["Properties"]["AutoPublishAlias"] == "live"
    assert resources["Migration"]["Properties"]["ReservedConcurrentExecutions"] == 1
    # It would open a second connection at each start.
    variables = resources["Service"]["Properties"]["Environment"]["Variables"]
    assert variables["DATABASE_BUDGET_CHECK"] == "off"


def test_release_on_lambda_migrates_before_its_code_serves(
    quickly: Render, tmp_path: Path
) -> None:
    """`sam deploy` replaces both functions, and `aws` hides that one has failed."""
    project = quickly(tmp_path / "shop", {"runtime": "lambda"})

    readme = (project / "README.md").read_text()
    first, later = (
        block
        for block in re.findall(r"(?:^    .+\n)+", readme, re.MULTILINE)
        if "sam deploy" in block
    )
    assert first.index("sam deploy") < first.index("lambda invoke")
    steps = ("sam build", "update-function-code", "lambda wait", "lambda invoke")
    places = [later.index(each) for each in (*steps, "&& sam deploy")]
    assert places == sorted(places)
    for call in re.findall(r".*lambda invoke.*", first + later):
        assert "--cli-read-timeout 0 --query FunctionError --output text" in call
        assert '" = None' in call


def test_function_may_log_in_as_its_own_users_alone(
    quickly: Render, tmp_path: Path
) -> None:
    """By tokens of IAM, which each role may be given for any user."""
    answers = {"runtime": "lambda", "cloud": "aws_rds", "auth": "token"}
    project = quickly(tmp_path / "shop", answers)

    text = (project / "deploy" / "template.yaml").read_text()
    _, service, migration, _ = re.split(
        r"^  (?:Service|Migration):$", text, flags=re.MULTILINE
    )
    users = [
        re.findall(r":dbuser:\*/(\w+)$", it, re.MULTILINE)
        for it in (service, migration)
    ]
    assert users == [["shop"], ["shop_owner"]]
    assert text.count("Action: rds-db:connect") == 2


@pytest.mark.parametrize(
    ("runtime", "found"),
    [
        ("container", set()),
        ("kubernetes", {"kubernetes"}),
        ("cloud_run", {"cloud-run.yaml", "cloud-run-migrate.yaml"}),
        ("lambda", {"template.yaml", "run.sh", "start.py", "migrate.py"}),
    ],
)
def test_one_runtime_is_described(
    quickly: Render, tmp_path: Path, runtime: str, found: set[str]
) -> None:
    project = quickly(tmp_path / "shop", {"runtime": runtime})

    shared = {"bootstrap.sql"}
    if runtime in {"container", "cloud_run"}:
        shared |= {"monitoring"}
    assert {path.name for path in project.glob("deploy/*")} == found | shared


@pytest.mark.parametrize(
    ("ci", "found"),
    [
        (
            "github",
            {".github/CODEOWNERS", ".github/workflows/ci.yml", "renovate.json"},
        ),
        ("gitlab", {".gitlab-ci.yml", ".gitlab/CODEOWNERS", "renovate.json"}),
        ("none", set()),
    ],
)
def test_answer_decides_where_its_tests_run(
    quickly: Render, tmp_path: Path, ci: str, found: set[str]
) -> None:
    project = quickly(tmp_path / "shop", {"ci": ci, "driver": "asyncmy"})

    patterns = (".github/**/*", ".gitlab*", ".gitlab/**/*", "renovate.json")
    files = {
        str(path.relative_to(project))
        for pattern in patterns
        for path in project.glob(pattern)
        if path.is_file()
    }
    assert files == found
    if "renovate.json" in found:
        check("vendor.renovate", project / "renovate.json")


def test_release_of_the_template_does_not_wait_for_ever(
    template: Path, tmp_path: Path
) -> None:
    """Renovate holds back what has no time, as a tag and a digest.

    It looks up the address that the first copy was given.
    """
    project = render(template, tmp_path / "shop", {})

    described = json.loads((project / "renovate.json").read_text())
    waits = {
        kind: rule.get("minimumReleaseAge") or rule.get("minimumReleaseAgeBehaviour")
        for rule in described["packageRules"]
        if rule.keys() & {"minimumReleaseAge", "minimumReleaseAgeBehaviour"}
        for kind in rule.get("matchManagers", []) + rule.get("matchUpdateTypes", [])
    }
    assert described["minimumReleaseAge"] == "7 days"
    assert waits.pop("copier") is None
    assert waits == dict.fromkeys(("digest", "pin", "pinDigest"), "timestamp-optional")
    readme = (template / "README.md").read_text()
    (address,) = re.findall(r"uvx copier copy \S+ (\S+) ", readme)
    assert address.startswith("https://")


def check(schema: str, file: Path) -> None:
    subprocess.run(["check-jsonschema", "--builtin-schema", schema, file], check=True)


@pytest.mark.parametrize(
    ("answers", "url"),
    [
        ({"pooler": "transaction", "with_celery": True}, "postgresql://app:app@"),
        ({"driver": "asyncmy", "server_version": "8.4"}, "mysql://root:app@"),
        ({"driver": "aiosqlite"}, ""),
        ({"runtime": "lambda"}, "postgresql://app:app@"),
    ],
    ids=["postgresql", "mysql", "sqlite", "lambda"],
)
def test_gitlab_tests_on_the_database_of_the_answer(
    quickly: Render, tmp_path: Path, answers: Answers, url: str
) -> None:
    project = quickly(tmp_path / "shop", answers | {"ci": "gitlab"})

    check("vendor.gitlab-ci", project / ".gitlab-ci.yml")
    jobs = yaml.safe_load((project / ".gitlab-ci.yml").read_text())
    variables = jobs["test"].get("variables", {})
    # Its host is no loopback address: the service would ask for a certificate.
    wanted = f"{url}database/app?sslmode=disable" if url else None
    assert variables.get("DATABASE_URL") == wanted
    assert jobs["default"]["image"] == f"python:{PYTHON}-trixie"
    assert jobs["variables"]["UV_LOCKED"] == "1"


def test_github_tests_on_the_python_of_the_image(
    quickly: Render, tmp_path: Path
) -> None:
    project = quickly(tmp_path / "shop", {})

    workflow = project / ".github" / "workflows" / "ci.yml"
    variables = yaml.safe_load(workflow.read_text())["env"]
    # A change of pyproject.toml that uv.lock lacks fails here, and not at a release.
    assert variables == {"UV_LOCKED": "1", "UV_PYTHON": PYTHON}
    dockerfile = (project / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM python:(.*?)-", dockerfile, re.MULTILINE)) == {PYTHON}


@pytest.mark.parametrize(
    ("answers", "image"),
    [
        ({}, "postgres:18"),
        ({"server_version": "15"}, "postgres:15"),
        ({"driver": "asyncmy"}, "mariadb:11.8"),
        ({"driver": "asyncmy", "server_version": "8.4"}, "mysql:8.4"),
        ({"driver": "aiomysql", "server_version": "9.7"}, "mysql:9.7"),
    ],
)
def test_compose_has_the_server_of_the_answer(
    quickly: Render, tmp_path: Path, answers: Answers, image: str
) -> None:
    project = quickly(tmp_path / "shop", answers | {"with_replicas": True})

    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    assert services["database"]["image"] == image
    assert ("replica" in services) is not image.startswith("mysql")
    variables = services["service"]["environment"]
    assert ("DATABASE_REPLICA_URLS" in variables) is ("replica" in services)
    # All that runs the service is one image.
    names = {each.get("image") for each in services.values()}
    assert names == {image, "shop"}


def test_compose_starts_again_what_has_ended_and_keeps_what_is_queued(
    quickly: Render, tmp_path: Path
) -> None:
    answers = {"with_celery": True, "with_replicas": True, "pooler": "transaction"}
    project = quickly(tmp_path / "shop", answers)

    document = yaml.safe_load((project / "compose.yaml").read_text())
    services = document["services"]
    assert {name: each["restart"] for name, each in services.items()} == {
        **dict.fromkeys(services, "unless-stopped"),
        "migrate": "on-failure",
    }
    broker = services["broker"]
    assert broker["command"] == ["redis-server", "--appendonly", "yes"]
    (volume,) = broker["volumes"]
    assert volume == "broker:/data"
    assert "broker" in document["volumes"]


@pytest.mark.parametrize(
    ("answers", "path"),
    [
        ({"with_celery": True}, "/src/shop/worker/"),
        ({"runtime": "lambda"}, "/deploy/start.py"),
    ],
    ids=["celery", "lambda"],
)
def test_two_codeowners_agree_with_the_readme(
    quickly: Render, tmp_path: Path, answers: Answers, path: str
) -> None:
    """Each path that a rule names is there, and no file of the owner's is named."""
    project = quickly(tmp_path / "shop", answers)

    rules = (project / ".github" / "CODEOWNERS").read_text().splitlines()
    paths = [rule.split()[0] for rule in rules if rule.startswith("/")]
    assert path in paths
    assert all((project / each.lstrip("/")).exists() for each in paths)
    readme = (project / "README.md").read_text()
    for line in readme.splitlines():
        if line.startswith("| `src/") and line.endswith("| yours |"):
            for file in re.findall(r"`([\w/.]+)`", line.split("|")[1]):
                assert not any(each.endswith(file) for each in paths), file


def test_hook_before_a_commit_is_make_lint(quickly: Render, tmp_path: Path) -> None:
    project = quickly(tmp_path / "shop", {})

    makefile = (project / "Makefile").read_text()
    (recipe,) = re.findall(r"^lint: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    commands = [line.strip().replace("$(UV)", "uv") for line in recipe.splitlines()]
    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())["repos"]
    assert [each["entry"] for repo in hooks for each in repo["hooks"]] == commands


@pytest.mark.parametrize("answers", [{}, {"driver": "aiosqlite"}], ids=["", "sqlite"])
def test_facts_for_an_agent_are_true(
    quickly: Render, tmp_path: Path, answers: Answers
) -> None:
    """Commands are targets, paths are there, and the page stays one page."""
    project = quickly(tmp_path / "shop", answers)
    text = (project / "AGENTS.md").read_text()

    assert len(text.splitlines()) <= 60
    makefile = (project / "Makefile").read_text()
    commands = re.findall(r"`make ([\w-]+)", text)
    assert commands
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
    package = project / "src" / "shop"
    for path in re.findall(r"`([\w./-]+(?:\.\w+|/))`", text):
        places = (project / path, package / path)
        assert path == "uv.lock" or any(each.exists() for each in places), path
    face = (package / "db" / "__init__.py").read_text()
    for word in ("Read", "Write", "Base"):
        assert f'"{word}"' in face or f" {word}" in face
