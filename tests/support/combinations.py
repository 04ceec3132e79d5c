"""Every answer set that the questionnaire accepts, and small sets that cover them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from copier._main import Worker
from copier._types import MISSING
from copier._user_data import AnswersMap, Question

from tests.support.rendering import Answers, compiled_once

# A number with a name, files that no other answer changes, and what `traced()` adds.
UNBRANCHED = {"database_size", "ci", "with_tracing"}
Row = TypeVar("Row", bound=dict[Any, Any])


@contextmanager
def questionnaire(
    template: Path, last: str = ""
) -> Iterator[Callable[[Answers], Answers]]:
    """Answer it as `copier copy --defaults --data` does, without a rendering, all of it
    or up to the fact of that name.

    What is refused raises the ValueError that the command ends with.
    """
    with (
        compiled_once(),
        Worker(str(template), Path("service"), defaults=True, quiet=True) as worker,
    ):
        questions = worker.template.questions_data
        while last and next(reversed(questions)) != last:
            questions.popitem()

        def answer(answers: Answers) -> Answers:
            worker.data = answers
            worker._ask()
            return dict(worker.answers.combined)

        yield answer


def all_answers(template: Path) -> list[Answers]:
    """Branch at each choice and each yes or no, in the order of copier.yml.

    The questionnaire itself has the branches: a choice that is greyed out, or an answer
    that is refused, is none. Numbers and texts keep their default, as do the questions
    of UNBRANCHED.
    """
    with (
        compiled_once(),
        Worker(str(template), Path("service"), defaults=True, quiet=True) as worker,
    ):
        worker.answers = AnswersMap(metadata=worker.template.metadata)
        questions = list(worker.template.questions_data.items())
        # What follows from all answers refuses none, and takes half of the time.
        while questions[-1][1].get("when") is False:
            questions.pop()
        return list(_branches(worker, questions, {}))


def _branches(
    worker: Worker, ahead: list[tuple[str, Any]], chosen: Answers
) -> Iterator[Answers]:
    if not ahead:
        yield chosen
        return
    (name, details), *rest = ahead
    question = Question(
        answers=worker.answers,
        context=worker._render_context(),
        jinja_env=worker.jinja_env,
        settings=worker.settings,
        var_name=name,
        **details,
    )
    asked = question.get_when()
    options = _options(question) if asked and name not in UNBRANCHED else None
    for value in [question.get_default()] if options is None else options:
        if value is not MISSING:
            worker.answers.user[name] = value
        recorded = {name: value} if options is not None else {}
        yield from _branches(worker, rest, chosen | recorded)
        worker.answers.user.pop(name, None)


def _options(question: Question) -> list[Any] | None:
    """What can be chosen, or None where anything can be typed."""
    if question.get_type_name() == "bool":
        candidates: list[Any] = [False, True]
    elif question.choices:
        candidates = [
            question.parse_answer(choice.value)
            for choice in question._formatted_choices
            if not choice.disabled
        ]
    else:
        return None
    return [value for value in candidates if _accepted(question, value)]


def _accepted(question: Question, value: Any) -> bool:
    try:
        question.validate_answer(value)
    except ValueError:
        return False
    return True


def cover(rows: list[Row], strength: int) -> list[Row]:
    """Pick rows greedily until each combination of `strength` answers is in one."""

    def parts(row: Row) -> set[Any]:
        return set(itertools.combinations(sorted(row.items()), strength))

    missing = set().union(*map(parts, rows))
    picked = []
    while missing:
        best = max(rows, key=lambda row: len(parts(row) & missing))
        picked.append(best)
        missing -= parts(best)
    return picked


def traced(rows: list[Answers]) -> list[Answers]:
    """With tracing, which adds the same whatever the cloud: each pair of the others."""
    able = [row for row in rows if row["runtime"] != "lambda"]
    return [
        row | {"with_tracing": True}
        for row in cover([row for row in able if row["cloud"] == "self_hosted"], 2)
    ]


def name(answers: Answers) -> str:
    """A short name for test ids and folders: a yes is told by its question."""
    words = (
        question if answer is True else answer
        for question, answer in answers.items()
        if answer is not False
    )
    return "-".join(str(word).replace("_", "") for word in words)


def tasks_of(answers: Answers) -> tuple[Any, ...]:
    """What decides about the source of tasks, whatever the class of the rest."""
    engine = answers.get("celery_engine")
    replicas = bool(engine and answers.get("with_replicas"))
    traced = bool(engine and answers.get("with_tracing"))
    return engine, replicas, traced, answers["driver"] != "aiosqlite"


def class_of(answers: Answers) -> tuple[Any, ...]:
    """What decides about the source; the rest of the answers is numbers and files."""
    pooler, runtime = answers.get("pooler", "none"), answers["runtime"]
    return (
        answers["driver"],
        "transaction" if pooler == "rds_proxy" else pooler,
        "container" if runtime == "kubernetes" else runtime,
        answers["cloud"].split("_")[0] if answers.get("auth") == "token" else "",
        ("aurora" in answers["cloud"],) if answers.get("with_replicas") else (),
        bool(answers.get("with_tracing")),
    )
