"""The files of the image, and of a function's package: what the settings name."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import manifests
from tests.support.rendering import Answers, Render, environment

CERTIFICATE = "ca.pem"
# What a folder of an owner has, and no release may have.
PRIVATE = (".env", ".env.migrate", "server.key", "other.pem")


def context(project: Path) -> set[Path]:
    """The files that .dockerignore lets a build see."""
    lines = (project / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert len(let_in) + 2 == len(rules), "this test knows `!path` alone"
    return {
        path
        for path in project.rglob("*")
        if path.is_file()
        and any(path.relative_to(project).is_relative_to(each) for each in let_in)
    }


def image(project: Path) -> set[str]:
    """The files that the last stage copies, below its WORKDIR."""
    last = (project / "Dockerfile").read_text().split("\nFROM ")[-1]
    found: set[str] = set()
    for sources, target in re.findall(r"^COPY (?!--)(.+) (\S+)$", last, re.MULTILINE):
        # Of a folder Docker copies what is in it.
        copied = {
            str(Path(target) / path.relative_to(source if source.is_dir() else project))
            for pattern in sources.split()
            for source in project.glob(pattern)
            for path in context(project)
            if path.is_relative_to(source)
        }
        assert copied, f"COPY {sources} has nothing to copy"
        found |= copied
    return found


def fill(project: Path) -> None:
    for name in (CERTIFICATE, *PRIVATE):
        (project / name).write_text("of the owner\n")


@pytest.mark.parametrize(
    "answers",
    [
        {"runtime": "kubernetes", "cloud": "aws_rds"},
        {"runtime": "kubernetes", "pooler": "transaction"},
        {"runtime": "cloud_run", "cloud": "gcp_cloud_sql"},
        {"runtime": "container", "cloud": "supabase"},
        {"runtime": "container", "driver": "aiosqlite"},
    ],
    ids=lambda answers: "-".join(answers.values()),
)
def test_image_has_what_the_settings_name_and_no_secret(
    quickly: Render, tmp_path: Path, answers: Answers
) -> None:
    project = quickly(tmp_path / "shop", answers)
    bare = image(project)
    fill(project)
    files = image(project)

    assert {"pyproject.toml", "migrations/env.py", "migrations/script.py.mako"} <= bare
    assert ("gunicorn.conf.py" in bare) is (project / "gunicorn.conf.py").exists()
    has_server = answers.get("driver") != "aiosqlite"
    assert files - bare == ({CERTIFICATE} if has_server else set())
    pods = []
    if answers["runtime"] == "kubernetes":
        pods = [*manifests.in_kubernetes(project).values()]
    elif answers["runtime"] == "cloud_run":
        secrets = {f"shop-{name}database-url": "" for name in ("", "migrate-")}
        pods = [
            manifests.on_cloud_run(project, name, secrets)
            for name in ("cloud-run.yaml", "cloud-run-migrate.yaml")
        ]
    for pod in pods:
        assert pod.variables["DATABASE_SSLROOTCERT"] in files


def test_image_is_built_from_a_lock_and_names_its_source(
    quickly: Render, tmp_path: Path
) -> None:
    project = quickly(tmp_path / "shop", {"description": "Sells tea"})
    text = (project / "Dockerfile").read_text()

    (check,) = re.findall(r"^RUN (test -f uv\.lock .*)$", text, re.MULTILINE)
    done = subprocess.run(
        ["sh", "-c", check], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "There is no uv.lock: run 'make lock', and commit the file.\n"
    )
    assert "\nlock:" in (project / "Makefile").read_text()
    commands = re.findall(r"uv sync .*", text)
    assert commands
    assert all(" --locked " in each for each in commands)
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*?)"', text))
    assert labels == {
        "title": "shop",
        "description": "Sells tea",
        "version": "$VERSION",
        "revision": "$REVISION",
    }
    readme = (project / "README.md").read_text()
    for argument in ("VERSION", "REVISION"):
        assert re.search(rf"^ARG .*\b{argument}=", text, re.MULTILINE)
        assert f"--build-arg {argument}=" in readme


def test_package_of_a_function_has_what_the_settings_name_and_no_secret(
    quickly: Render, tmp_path: Path
) -> None:
    answers: Answers = {"runtime": "lambda", "cloud": "aws_rds"}
    project, package = (
        quickly(tmp_path / "shop", answers),
        tmp_path / "package",
    )
    fill(project)
    package.mkdir()
    recipe = subprocess.run(
        ["make", "--dry-run", "build-Service", f"ARTIFACTS_DIR={package}"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (command,) = [line for line in recipe.splitlines() if line.startswith("cp ")]
    subprocess.run(["sh", "-c", command], cwd=project, check=True)
    function = (project / "deploy" / "template.yaml").read_text()

    found = {path.name for path in package.iterdir()}
    assert {CERTIFICATE, "migrations", "pyproject.toml", "start.py"} <= found
    assert not found & {*PRIVATE}
    assert f"DATABASE_SSLROOTCERT: {CERTIFICATE}" in function
    assert "NoEcho" not in function


def test_secrets_of_kubernetes_are_files(quickly: Render, tmp_path: Path) -> None:
    """Nothing that is secret is in a variable, which each child process inherits."""
    answers: Answers = {"runtime": "kubernetes", "with_celery": True}
    project = quickly(tmp_path / "shop", answers)
    base = project / "deploy" / "kubernetes" / "base"
    for path in base.glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            assert "secretKeyRef" not in str(document), path
