"""Renders the template as its users do, and, for hundreds of answer sets, faster."""

import copy
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from unittest import mock

import copier
import jinja2
import yaml
from copier import _user_data
from copier._main import Worker
from copier._template import load_template_config
from copier._user_data import parse_yaml_string

ROOT = Path(__file__).parents[2]
NEXT = "9999.0.0"
RELEASES = ROOT / "tests" / "update" / "releases.txt"
SYNTAX = (
    *("block_start_string", "block_end_string", "comment_start_string"),
    *("comment_end_string", "keep_trailing_newline", "line_comment_prefix"),
    *("line_statement_prefix", "lstrip_blocks", "newline_sequence", "trim_blocks"),
    *("variable_start_string", "variable_end_string"),
)

Answers = dict[str, Any]
# Into a folder, which is returned.
Render = Callable[[Path, Answers], Path]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def isolate(home: Path) -> dict[str, str]:
    """The environment in which nobody's git and Copier settings have a say."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "gitconfig").write_text(
        "[user]\nname = Test\nemail = test@example.com\n"
        "[init]\ndefaultBranch = main\n[advice]\ndetachedHead = false\n"
    )
    (home / "copier.yml").write_text("{}\n")
    return {
        "COPIER_CACHE_DIR": str(home / "copier"),
        "COPIER_SETTINGS_PATH": str(home / "copier.yml"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def releases() -> list[tuple[str, str]]:
    """Version and commit of each release, oldest first."""
    lines = RELEASES.read_text().splitlines()
    return [
        (version, commit)
        for version, commit in (
            line.split() for line in lines if line and not line.startswith("#")
        )
    ]


def snapshot(clone: Path) -> Path:
    """Clone this repository with the work tree as its next release.

    Copier never sees the live repository: rendering a dirty one runs `git add` in it.
    """
    subprocess.run(["git", "clone", "--quiet", "--no-tags", ROOT, clone], check=True)
    for version, commit in releases():
        try:
            git(clone, "tag", version, f"{commit}^{{commit}}")
        except subprocess.CalledProcessError as error:
            message = f"release {version} is recorded, but {commit} is not in history"
            raise LookupError(message) from error
    for path in git(clone, "ls-files", "-z").split("\0")[:-1]:
        (clone / path).unlink()
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for path in listed.split("\0")[:-1]:
        if (ROOT / path).exists():
            (clone / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, clone / path)
    return release(clone, NEXT)


def release(clone: Path, version: str) -> Path:
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", version)
    git(clone, "tag", version)
    return clone


@cache
def questions(template: Path) -> dict[str, Any]:
    """What copier.yml asks, without what follows from the answers."""
    with Worker(str(template)) as worker:
        return {
            name: details
            for name, details in worker.template.questions_data.items()
            if details.get("when") is not False
        }


def render(template: Path, to: Path, answers: Answers) -> Path:
    """Copy through the public interface, without trust, and refuse unknown answers."""
    unknown = answers.keys() - questions(template).keys()
    assert not unknown, f"no such question: {unknown}"
    copier.run_copy(
        str(template), to, data=answers, defaults=True, unsafe=False, quiet=True
    )
    return to


@contextmanager
def fast(template: Path, source: Path) -> Iterator[Path]:
    """Yield a source that renders many times faster, for hundreds of answer sets.

    A plain folder is not cloned, copier.yml is read once, each source is compiled once,
    the answers are put together once for all files of a rendering, and no file costs a
    `git config`. Rests on names of Copier that are not public; a test compares the
    outcome with that of the public interface.

    Entered again with the same two folders, it has what it has compiled before.
    """
    configuration, compiled = _read_once(template, source)
    with (
        compiled_once(compiled),
        answered_once(),
        mock.patch("copier._main.is_git_available", return_value=False),
        mock.patch("copier._template.get_repo", return_value=None),
        mock.patch(
            "copier._template.load_template_config",
            side_effect=lambda *_: copy.deepcopy(configuration),
        ),
    ):
        yield source


@cache
def _read_once(template: Path, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a source, and what `compiled_once` keeps for it."""
    shutil.copytree(template, source, ignore=shutil.ignore_patterns(".git"))
    return load_template_config(source / "copier.yml"), {}


@contextmanager
def compiled_once(compiled: dict[str, Any] | None = None) -> Iterator[None]:
    """Compile and parse each text of the template once, and not for each answer."""
    build = Worker.__dict__["jinja_env"].func
    kept = {} if compiled is None else compiled
    parse = kept.setdefault("parse", cache(parse_yaml_string))

    def shared(worker: Worker) -> Any:
        if "environment" not in kept:
            environment = build(worker)
            environment.from_string = cache(environment.from_string)
            kept["environment"] = environment
        return kept["environment"]

    with (
        mock.patch.object(Worker, "jinja_env", property(shared)),
        mock.patch.object(_user_data, "parse_yaml_string", parse),
    ):
        yield


@contextmanager
def answered_once() -> Iterator[None]:
    """Put together what templates see once for each rendering, not for each file or
    folder; most of them have a plain name.
    """
    render_files = Worker._render_template
    render_string = Worker._render_string

    def render_all(worker: Worker) -> None:
        context, path = dict(worker._render_context()), worker.answers_relpath

        def copied(_: Worker) -> dict[str, Any]:
            return context.copy()

        with (
            mock.patch.object(Worker, "_render_context", copied),
            mock.patch.object(Worker, "answers_relpath", path),
        ):
            render_files(worker)

    def render_name(worker: Worker, text: str, *more: Any, **context: Any) -> str:
        if "{" not in text and "\n" not in text:
            return text
        return render_string(worker, text, *more, **context)

    with (
        mock.patch.object(Worker, "_render_template", render_all),
        mock.patch.object(Worker, "_render_string", render_name),
    ):
        yield


@contextmanager
def frugal(folder: Path) -> Iterator[None]:
    """Let Copier do once in this process what it does again for each file or version,
    and let it work in this folder.

    It compiles each text for each copy (an update makes three), reads YAML by Python,
    and asks git before each file whether executable bits count, which they do here.
    """
    compile_text = jinja2.Environment.compile
    compiled: dict[Any, Any] = {}

    def compile_once(
        environment: jinja2.Environment, source: str, name: Any = None, *file: Any
    ) -> Any:
        # Not the file: it is in another clone each time, and only tracebacks have it.
        settings = (getattr(environment, each) for each in SYNTAX)
        extensions = sorted(environment.extensions)
        key = (type(environment), source, name, *settings, *extensions)
        if key not in compiled:
            compiled[key] = compile_text(environment, source, name, *file)
        return compiled[key]

    with (
        mock.patch.object(jinja2.Environment, "compile", compile_once),
        mock.patch("yaml.SafeLoader", yaml.CSafeLoader),
        mock.patch.object(Worker, "_sync_git_index_executable_bit"),
        mock.patch(
            "copier._main.TemporaryDirectory", partial(TemporaryDirectory, dir=folder)
        ),
        mock.patch("copier._template.mkdtemp", partial(mkdtemp, dir=folder)),
        mock.patch("copier._vcs.mkdtemp", partial(mkdtemp, dir=folder)),
    ):
        yield


def files(folder: Path) -> dict[str, bytes]:
    """Every file below, without what git and tools leave."""
    tools = {".git", ".venv", ".ruff_cache", ".mypy_cache", ".pytest_cache"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not tools & set(path.parts)
        and "__pycache__" not in path.parts
        and path.name != "uv.lock"
    }


def load_answers(project: Path) -> Answers:
    answers: Answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return answers


def environment(**changes: str) -> dict[str, str]:
    """What a rendered service may see of the environment of the tests."""
    hidden = ("DATABASE_", "VIRTUAL_ENV", "UV_ENV_FILE", "MAKE", "PYTEST", "LOG_LEVEL")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    return kept | changes
