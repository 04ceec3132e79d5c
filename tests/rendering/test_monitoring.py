"""Alert rules, dashboard and README are of one table; promtool tries each alert."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering.conftest import Content
from tests.support.rendering import ROOT, Answers
from tests.support.servers import unpacked
from tools.drill import EXPECTED

# In the code; of them the rules and the panels take samples.
METRIC = re.compile(r"\b(?:Counter|Gauge|Histogram|_gauge)\(\s*\"(\w+)\"")
SAMPLE = re.compile(r"(\w+?)(?:_bucket|_count|_sum)?\{")
ROW = re.compile(r"^\| `(\w+)` \|.*\| (?:`\w+`: .*|)\|$", re.MULTILINE)
BUDGET = re.compile(r"database_pool_size\{.*> (\d+)$", re.DOTALL)
# A histogram and its buckets in the code; a threshold of a quantile in a rule.
BUCKETS = re.compile(r'Histogram\(\s*"(\w+)"[^)]*?buckets=\(([\d., ]+)\)')
QUANTILE = re.compile(
    r"^histogram_quantile\([^{]*\((\w+)_bucket.*> ([\d.]+)$", re.DOTALL
)
REPLICAS = ("db3:5432", "db4:5432")
# Of an instance that is not the service's.
EVERY = "celery_task_every_seconds|instance='w',task='payments.sweep'"
PROCESSES = "celery_processes|instance='w'"
# Of Prometheus itself.
UP = {"up"}
# A sample each minute.
MINUTES = 60
END = f"{MINUTES}m"


def quiet() -> dict[str, str]:
    """Series of a service without any fault, for the rules of every answer."""
    series = {"up": "1", "gunicorn_workers_ended_total": "0"}
    series["http_requests_in_progress"] = "2"
    for status, growth in {"2xx": 60, "4xx": 6, "5xx": 0}.items():
        labels = f'method="GET",route="/orders",status="{status}"'
        series |= histogram("http_request_duration_seconds", labels, growth, "0.1")
    # Most requests are probes and scrapes, whose failure no client notices.
    for route, status in {"livez": "2xx", "readyz": "5xx", "metrics": "2xx"}.items():
        labels = f'method="GET",route="/{route}",status="{status}"'
        series |= slow("http_request_duration_seconds", labels, "0.1")
    # Clients send what conflicts and what is wrong: no fault of the service.
    for kind in ("busy", "timeout", "unavailable", "outcome-unknown"):
        series[f"http_problems_total|type={kind!r}"] = "0"
    for kind in ("conflict", "invalid-value"):
        series[f"http_problems_total|type={kind!r}"] = "0+1"
    pool = "pool='primary'"
    gauges = {"size": 10, "in_use": 3, "waiting": 0, "leaked": 0}
    for name, value in gauges.items():
        series[f"database_pool_{name}|{pool}"] = f"{value}"
    for replica in REPLICAS:
        series[f"database_pool_size|pool='{replica}'"] = f"{gauges['size']}"
    series |= histogram("database_pool_wait_seconds", pool, 66, "0.01")
    series[f"database_pool_refused_total|{pool}"] = "0"
    series[f"database_pool_connections_created_total|{pool}"] = "0+1"
    for reason, growth in {"lifetime": 1, "error": 0, "validation": 0}.items():
        name = "database_pool_connections_invalidated_total"
        series[f"{name}|{pool},reason={reason!r}"] = f"0+{growth}"
    series["database_primary|host='db1:5432'"] = "1"
    series["database_primary|host='db2:5432'"] = "0"
    series["database_reads_total|pool='db3:5432'"] = "0+60"
    series["database_reads_total|pool='primary'"] = "0+1"
    series["database_replica_fallbacks_total|reason='behind'"] = "0+1"
    series["database_replica_lag_seconds|pool='db3:5432'"] = "0.1"
    series["database_replica_bans_total|pool='db3:5432',reason='lag'"] = "0"
    series |= histogram("database_replica_wait_seconds", "", 60, "0.01")
    task = "task='payments.sweep'"
    for outcome, growth in {"done": 2, "failed": 0, "killed": 0}.items():
        series[f"celery_tasks_total|{task},outcome={outcome!r}"] = f"0+{growth}"
    # The longest tasks take half of the time limit, and not more.
    series |= slow("celery_task_seconds", task, "10", "30")
    series |= histogram("celery_task_wait_seconds", task, 2, "0.1")
    # One of a long period is in no range of a rule.
    series |= {EVERY: "60", "celery_task_every_seconds|task='payments.bill'": "86400"}
    series[f"celery_tasks_unpublished_total|{task}"] = "0"
    series[f"celery_tasks_in_progress|{task}"] = "1"
    series["tracing_spans_dropped_total|reason='queue full'"] = "0"
    return series | {PROCESSES: "4"}


def histogram(name: str, labels: str, growth: int, bucket: str) -> dict[str, str]:
    """All observations are below that bound."""
    separator = "," if labels else ""
    bounds = {
        f"{name}_bucket|{labels}{separator}le={bound!r}": f"0+{growth}"
        for bound in (bucket, "+Inf")
    }
    return {**bounds, f"{name}_count|{labels}": f"0+{growth}"}


def slow(name: str, labels: str, bucket: str, higher: str = "") -> dict[str, str]:
    """No observation is below the bound, and all are below one of 100 times as much."""
    higher = higher or f"{float(bucket) * 100:g}"
    above = histogram(name, labels, 60, higher)
    return {f"{name}_bucket|{labels}{',' if labels else ''}le={bucket!r}": "0"} | above


GET = "method='GET',route='/orders',status"
POOL = "pool='primary'"
TASK = "task='payments.sweep'"
# What differs from the quiet series, for each alert.
PROVOKED: dict[str, dict[str, str]] = {
    "ErrorBudgetFast": {f"http_request_duration_seconds_count|{GET}='5xx'": "0+2"},
    "ErrorBudgetSlow": {f"http_request_duration_seconds_count|{GET}='5xx'": "0+0.5"},
    "SlowRequests": slow("http_request_duration_seconds", f"{GET}='2xx'", "0.1"),
    "OutcomeUnknown": {"http_problems_total|type='outcome-unknown'": "0x55 1"},
    "DatabaseProblems": {"http_problems_total|type='unavailable'": "0x53 1+1"},
    "InstanceDown": {"up|instance='b'": "0"},
    # Of the service there is nothing; its workers live, and have the same job.
    "ServiceDown": {
        "up": "0",
        "up|instance='w'": "1",
        "gunicorn_workers_ended_total": "",
    },
    "WorkerEnded": {"gunicorn_workers_ended_total": "0x55 1"},
    "ConnectionBudget": {f"database_pool_size|{POOL}": "100000"},
    "PoolSaturated": {f"database_pool_in_use|{POOL}": "9"},
    "PoolQueue": {f"database_pool_waiting|{POOL}": "3"},
    "SlowCheckouts": slow("database_pool_wait_seconds", POOL, "0.01"),
    "CheckoutsRejected": {f"database_pool_refused_total|{POOL}": "0x57 5"},
    "ConnectionLeak": {f"database_pool_leaked|{POOL}": "1"},
    "ConnectionChurn": {f"database_pool_connections_created_total|{POOL}": "0+65"},
    "ConnectionsLost": {
        f"database_pool_connections_invalidated_total|{POOL},reason='error'": "0+1"
    },
    "PrimaryMoved": {
        "database_primary|host='db1:5432'": "1x55 0",
        "database_primary|host='db2:5432'": "0x55 1",
    },
    "PrimaryFlaps": {
        "database_primary|host='db1:5432'": "1x50 0x0 1x0 0x0 1x0 0",
        "database_primary|host='db2:5432'": "0x50 1x0 0x0 1x0 0x0 1",
    },
    "ReplicasUnused": {"database_replica_fallbacks_total|reason='behind'": "0+40"},
    "ReplicaBanned": {
        "database_replica_bans_total|pool='db3:5432',reason='lag'": "0x58 1"
    },
    "ReplicaLag": {"database_replica_lag_seconds|pool='db3:5432'": "1.5"},
    "SlowReplicas": slow("database_replica_wait_seconds", "", "0.01"),
    "TasksFailed": {f"celery_tasks_total|{TASK},outcome='failed'": "0x58 1"},
    # Requests publish their tasks while the scheduler is gone.
    "PeriodicTaskMissing": {
        f"celery_tasks_total|{TASK},outcome='done'": "100",
        "celery_tasks_total|task='payments.pay',outcome='done'": "0+9",
    },
    "TasksUnpublished": {f"celery_tasks_unpublished_total|{TASK}": "0x58 1"},
    "NoTaskDone": {f"celery_tasks_total|{TASK},outcome='done'": "100"},
    "SlowTasks": slow("celery_task_seconds", TASK, "30", "60"),
    "TasksLate": slow("celery_task_wait_seconds", TASK, "0.5"),
    "NoWorkers": {PROCESSES: "0"},
    "SpansDropped": {"tracing_spans_dropped_total|reason='export failed'": "0+1"},
    "WorkersBusy": {f"celery_tasks_in_progress|{TASK}": "4"},
}


def written(series: dict[str, str]) -> list[dict[str, str]]:
    """As promtool reads it: values up to the end, and the labels of a scrape."""
    lines = []
    for key, values in series.items():
        if not values:  # no such series
            continue
        name, _, labels = key.partition("|")
        labels = labels.replace("'", '"')
        if "instance" not in labels:
            labels = f'instance="a",{labels}'
        *first, last = values.split()
        known = sum(int(each.split("x")[1]) + 1 for each in first)
        text = " ".join([*first, f"{last}x{MINUTES - known}"])
        labels = f'job="service",namespace="service",{labels}'
        lines.append({"series": f"{name}{{{labels}}}", "values": text})
    return lines


def unit_test(series: dict[str, str], alert: str = "") -> dict[str, Any]:
    """A test: that alert fires at the end, or none has ever been pending."""
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0'
    one = {"expr": firing, "exp_samples": [{"labels": "{}", "value": 1}]}
    none = {"expr": f"count(count_over_time(ALERTS[{END}]))", "exp_samples": []}
    return {
        "interval": "1m",
        "input_series": written(series),
        "promql_expr_test": [(one if alert else none) | {"eval_time": END}],
    }


def folder_of(project: Path) -> Path:
    (found,) = project.glob("deploy/**/monitoring")
    return found


def rules_of(project: Path) -> dict[str, Any]:
    return rules_in((folder_of(project) / "alerts.yaml").read_text())


@cache
def rules_in(text: str) -> dict[str, Any]:
    """Those of a rule file, also from within a PrometheusRule."""
    document = yaml.load(text, yaml.CSafeLoader)
    rules: dict[str, Any] = document.get("spec", document)
    return rules


def alerts_of(project: Path) -> Iterator[dict[str, Any]]:
    return (rule for group in rules_of(project)["groups"] for rule in group["rules"])


def panels_of(project: Path) -> list[dict[str, Any]]:
    dashboard = json.loads((folder_of(project) / "dashboard.json").read_text())
    return [each for each in dashboard["panels"] if each["type"] == "timeseries"]


def queries_of(project: Path) -> list[str]:
    """Of the panels."""
    return [each["expr"] for panel in panels_of(project) for each in panel["targets"]]


def expressions_of(project: Path) -> str:
    return "\n".join(queries_of(project))


def has_metrics(row: Answers) -> bool:
    return bool(row["runtime"] != "lambda")


def test_metrics_are_those_of_the_code(
    renderings: dict[Path, Answers], modules: dict[Path, list[Content]]
) -> None:
    for project, row in renderings.items():
        texts = [module.text for module in modules[project]]
        if (gunicorn := project / "gunicorn.conf.py").exists():
            texts.append(gunicorn.read_text())
        code = {name for text in texts for name in METRIC.findall(text)}
        rows = {*ROW.findall((project / "README.md").read_text())}
        if not has_metrics(row):
            assert code == rows == set(), project
            continue
        rules = {
            name for each in alerts_of(project) for name in SAMPLE.findall(each["expr"])
        }

        assert rows == code | UP, project
        assert {*SAMPLE.findall(expressions_of(project))} == code | UP, project
        assert rules <= code | UP, project


def test_thresholds_are_bounds_of_buckets(
    renderings: dict[Path, Answers], modules: dict[Path, list[Content]]
) -> None:
    """Within a bucket a quantile is a guess: it may be twice what was measured."""
    texts = {each.text for found in modules.values() for each in found}
    bounds = {
        name: {float(bound) for bound in found.split(",")}
        for text in texts
        for name, found in BUCKETS.findall(text)
    }
    found = {
        threshold
        for project in filter(lambda each: has_metrics(renderings[each]), renderings)
        for each in alerts_of(project)
        for threshold in QUANTILE.findall(each["expr"])
    }

    assert len(found) > 3
    for name, threshold in found:
        assert float(threshold) in bounds[name], name


def test_alerts_are_those_of_the_readme(renderings: dict[Path, Answers]) -> None:
    for project in filter(lambda each: has_metrics(renderings[each]), renderings):
        readme = (project / "README.md").read_text()
        rows = "".join(found[0] for found in ROW.finditer(readme))
        names = [each["alert"] for each in alerts_of(project)]

        assert sorted(names) == sorted(re.findall(r"`([A-Z]\w+)`: ", rows)), project
        # An alert on no instance would page in each night without requests.
        is_kept = renderings[project]["runtime"] != "cloud_run"
        assert ("ServiceDown" in names) is is_kept, project
        for each in alerts_of(project):
            description = each["annotations"]["description"]
            (section,) = re.findall(r"README\.md, section (\w+)\.$", description)
            assert f"\n## {section}\n" in readme, f"{project}: {description}"


def test_service_is_named_everywhere(renderings: dict[Path, Answers]) -> None:
    """Another service has metrics of the same names."""
    for project in filter(lambda each: has_metrics(renderings[each]), renderings):
        texts = [each["expr"] for each in alerts_of(project)]
        for text in (*texts, expressions_of(project)):
            assert text.count("{") == text.count('{job="service"') > 0


def test_component_takes_in_each_file_and_names_the_job(
    renderings: dict[Path, Answers],
) -> None:
    projects = [
        each for each, row in renderings.items() if row["runtime"] == "kubernetes"
    ]

    assert projects
    for project in projects:
        folder = folder_of(project)
        component = yaml.safe_load((folder / "kustomization.yaml").read_text())
        (dashboard,) = component["configMapGenerator"]
        files = {*component["resources"], *dashboard["files"], "kustomization.yaml"}
        scrapes = yaml.safe_load((folder / "podmonitor.yaml").read_text())["spec"]

        assert files == {each.name for each in folder.iterdir()}
        # A label of the pods, whose value is the job of the rules.
        name = scrapes["jobLabel"]
        assert scrapes["selector"]["matchLabels"] == {name: "service"}


def test_drill_names_alerts_and_panels_of_the_table(
    renderings: dict[Path, Answers],
) -> None:
    projects = [each for each, row in renderings.items() if has_metrics(row)]
    titles = {panel["title"] for each in projects for panel in panels_of(each)}

    for expected in EXPECTED.values():
        assert expected.alerts <= PROVOKED.keys()
        assert expected.panel in titles


def test_picture_of_the_dashboard_is_small(renderings: dict[Path, Answers]) -> None:
    """`make drill` draws it; each service has it, and shows it in its README."""
    for project, row in renderings.items():
        picture = project / "docs" / "dashboard.png"
        text = (project / "README.md").read_text()

        assert picture.exists() is has_metrics(row) is ("(docs/dashboard.png)" in text)
        assert not picture.exists() or picture.stat().st_size < 200_000


def logs(call: ast.Call) -> bool:
    """Whether it is `logger.warning(...)`, or `context.run(logger.warning, ...)`."""
    called = [ast.unparse(each) for each in (call.func, *call.args[:1])]
    return any(re.match(r"logger\.(info|warning|error|log)$", each) for each in called)


def test_lines_of_the_database_have_their_facts_as_fields(
    modules: dict[Path, list[Content]],
) -> None:
    """But those of a migration, which a person reads."""
    texts = {
        module.text
        for found in modules.values()
        for module in found
        if re.match(r"db/(?!migrations/)", module.module)
    }
    calls = [
        node
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and logs(node)
    ]

    assert len(calls) > 5
    for call in calls:
        assert "extra" in [each.arg for each in call.keywords], ast.unparse(call)


@cache
def dumped(text: str) -> str:
    """The rules of that text in a rule file of their own."""
    rules: str = yaml.safe_dump(rules_in(text), sort_keys=False)
    return rules


@pytest.fixture(scope="module")
def checked(renderings: dict[Path, Answers], tmp_path_factory: Any) -> dict[str, Path]:
    """A file of each content that the rules have."""
    folder = tmp_path_factory.mktemp("rules")
    found: dict[str, Path] = {}
    for project in filter(lambda each: has_metrics(renderings[each]), renderings):
        text = dumped((folder_of(project) / "alerts.yaml").read_text())
        if text not in found:
            found[text] = folder / f"{len(found)}.yaml"
            found[text].write_text(text)
    return found


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [*unpacked(ROOT / ".servers" / "prometheus", "promtool"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.boot
def test_rules_are_valid(checked: dict[str, Path]) -> None:
    promtool("check", "rules", *checked.values())


@pytest.mark.boot
def test_queries_of_panels_are_valid(
    renderings: dict[Path, Answers], tmp_path: Path
) -> None:
    projects = [each for each, row in renderings.items() if has_metrics(row)]
    queries = {query for project in projects for query in queries_of(project)}
    rules = [
        {"record": f"panel:{n}", "expr": query.replace("$__rate_interval", "5m")}
        for n, query in enumerate(sorted(queries))
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    assert len(rules) > 20
    promtool("check", "rules", path)


@pytest.mark.boot
def test_each_alert_fires_on_its_fault_and_is_silent_on_a_quiet_hour(
    checked: dict[str, Path], tmp_path: Path
) -> None:
    """Each file is silent; an alert fires in one of the files that have it."""
    alerts: dict[str, set[str]] = {}
    for text in checked:
        groups = rules_in(text)["groups"]
        alerts[text] = {each["alert"] for group in groups for each in group["rules"]}
    left = {*PROVOKED}
    assert set().union(*alerts.values()) == left
    files: list[Path] = []
    for text in sorted(checked, key=lambda text: -len(alerts[text])):
        tests = [
            unit_test(quiet() | PROVOKED[each], each) for each in alerts[text] & left
        ]
        left -= alerts[text]
        content = {
            "rule_files": [str(checked[text])],
            "evaluation_interval": "1m",
            "tests": [unit_test(quiet()), *tests],
        }
        files.append(tmp_path / f"test-{len(files)}.yaml")
        files[-1].write_text(yaml.safe_dump(content))
    promtool("test", "rules", *files)


@pytest.mark.boot
def test_busy_worker_and_a_single_fault_fire_no_alert(
    checked: dict[str, Path], tmp_path: Path
) -> None:
    """The pool of a worker is one connection, which its task uses; a connection is lost
    now and then.
    """
    lost = "database_pool_connections_invalidated_total"
    usual = {
        f"database_pool_size|{POOL},instance='w'": "1",
        f"database_pool_in_use|{POOL},instance='w'": "1",
        f"{lost}|{POOL},reason='error'": "0x30 1",
        "http_problems_total|type='timeout'": "0x30 1",
        "tracing_spans_dropped_total|reason='queue full'": "0x30 1",
    }
    firing = 'count(count_over_time(ALERTS{alertstate="firing"}[60m]))'
    test = unit_test(quiet() | usual)
    test["promql_expr_test"][0]["expr"] = firing
    paths = [path for text, path in checked.items() if "celery" in text]
    content = {"evaluation_interval": "1m", "tests": [test]}
    files = [tmp_path / path.name for path in paths]
    for file, path in zip(files, paths, strict=True):
        file.write_text(yaml.safe_dump(content | {"rule_files": [str(path)]}))
    promtool("test", "rules", *files)


@pytest.mark.boot
def test_pools_of_two_replicas_are_on_two_servers(
    checked: dict[str, Path], tmp_path: Path
) -> None:
    """Without a pooler: that has all replicas behind it."""
    files: list[Path] = []
    for text, path in checked.items():
        rules = [each for group in rules_in(text)["groups"] for each in group["rules"]]
        (rule,) = [each for each in rules if each["alert"] == "ConnectionBudget"] or [
            {}
        ]
        if 'pool!="primary"' not in rule.get("expr", ""):
            continue
        (given,) = BUDGET.findall(rule["expr"])
        pools = ("primary", *REPLICAS)
        fits, over = [
            {f"database_pool_size|pool='{pool}'": f"{size}" for pool in pools}
            for size in (int(given) // 2, int(given) // 2 + 1)
        ]
        content = {
            "rule_files": [str(path)],
            "evaluation_interval": "1m",
            "tests": [
                unit_test(quiet() | fits),
                unit_test(quiet() | over, "ConnectionBudget"),
            ],
        }
        files.append(tmp_path / f"test-{len(files)}.yaml")
        files[-1].write_text(yaml.safe_dump(content))
    promtool("test", "rules", *files)
