"""What the files for deployment start, with which variables: read from their YAML."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Container:
    """A process as its platform starts it."""

    command: list[str]
    variables: dict[str, str]
    # The names of secrets, by the folder that has their files.
    mounts: dict[str, str] = field(default_factory=dict)
    # What an instance answers before it gets requests.
    ready: str = ""
    # The seconds from SIGTERM to SIGKILL.
    grace: float = 10


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads functions of CloudFormation as a pair of name and argument."""


_Loader.add_multi_constructor(
    "!", lambda loader, name, node: (name, loader.construct_scalar(node))
)


def image(project: Path) -> Container:
    """The command and the variables of Dockerfile."""
    text = (
        (project / "Dockerfile").read_text().replace("\\\n", " ").split("\nFROM ")[-1]
    )
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    pairs = [
        pair.split("=", 1)
        for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE)
        for pair in line.split()
    ]
    # What is installed is elsewhere here.
    return Container(json.loads(command), {k: v for k, v in pairs if k != "PATH"})


def in_kubernetes(project: Path) -> dict[str, Container]:
    """Each kind of pod by its name: the base, with what the overlay gives to it."""
    folder, built = project / "deploy" / "kubernetes", image(project)
    overlay = yaml.safe_load((folder / "production" / "kustomization.yaml").read_text())
    maps = {
        each["name"]: dict(literal.split("=", 1) for literal in each["literals"])
        for each in overlay["configMapGenerator"]
        if "literals" in each
    }
    base = yaml.safe_load((folder / "base" / "kustomization.yaml").read_text())
    found = {}
    for file in base["resources"]:
        for document in yaml.safe_load_all((folder / "base" / file).read_text()):
            if document["kind"] not in {"Deployment", "Job"}:
                continue
            pod = document["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            given = dict(built.variables)
            for source in container.get("envFrom", []):
                given |= maps[source["configMapRef"]["name"]]
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            found[document["metadata"]["name"]] = Container(
                container.get("args", built.command),
                given | _pairs(container, {}),
                _mounts(pod, container),
                container.get("readinessProbe", {}).get("httpGet", {}).get("path", ""),
                pod.get("terminationGracePeriodSeconds", 30) - pause.get("seconds", 0),
            )
    return found


def on_cloud_run(project: Path, file: str, secrets: Mapping[str, str]) -> Container:
    """The service or the job, with the values of its secrets by their names."""
    document = yaml.safe_load((project / "deploy" / file).read_text())
    spec, built = document["spec"]["template"]["spec"], image(project)
    (container,) = spec.get("containers") or spec["template"]["spec"]["containers"]
    given = built.variables | _pairs(container, secrets)
    for port in container.get("ports", []):
        given["PORT"] = str(port["containerPort"])
    return Container(
        container.get("args", built.command),
        given,
        ready=container.get("startupProbe", {}).get("httpGet", {}).get("path", ""),
    )


def on_lambda(project: Path, function: str, parameters: Mapping[str, str]) -> Container:
    """A function, with the values of the parameters of its stack."""
    text = (project / "deploy" / "template.yaml").read_text()
    document = yaml.load(text, _Loader)  # noqa: S506
    properties = document["Resources"][function]["Properties"]
    variables: dict[str, Any] = {}
    for each in (document["Globals"]["Function"], properties):
        variables |= each.get("Environment", {}).get("Variables", {})
    given = {
        name: _resolved(value[0], value[1], parameters)
        if isinstance(value, tuple)
        else str(value)
        for name, value in variables.items()
    }
    ready = given.pop("AWS_LWA_READINESS_CHECK_PATH", "")
    return Container([properties["Handler"]], given, ready=ready)


def in_compose(project: Path) -> dict[str, Container]:
    """Each service of compose.yaml that runs the image of this project, by its name."""
    document = yaml.safe_load((project / "compose.yaml").read_text())
    built = image(project)
    return {
        name: Container(
            each.get("command", built.command),
            built.variables | each["environment"],
            ready="/readyz",
            grace=float(each.get("stop_grace_period", "10s").rstrip("s")),
        )
        for name, each in document["services"].items()
        if each.get("build") == "."
    }


def _resolved(function: str, argument: str, parameters: Mapping[str, str]) -> str:
    """The value of `!Ref` or `!Sub`."""
    if function == "Sub":
        return re.sub(r"\$\{(.+?)\}", lambda found: parameters[found[1]], argument)
    return parameters[argument]


def _pairs(container: dict[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    return {
        each["name"]: each["value"]
        if "value" in each
        else secrets[each["valueFrom"]["secretKeyRef"]["name"]]
        for each in container.get("env", [])
    }


def _mounts(pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
    names = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in pod["volumes"]
        if "secret" in volume
    }
    return {
        each["mountPath"]: names[each["name"]]
        for each in container["volumeMounts"]
        if each["name"] in names
    }
