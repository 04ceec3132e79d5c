"""The API document: the answers of a route follow from the session it asks for."""

import logging
import re
import warnings
from collections.abc import Container, Iterator
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security.base import SecurityBase

from ..db import Export, Read, Snapshot, Write
from ..db.errors import FaultKind
from .errors import PROBLEMS

WRITES = get_args(Write)[1].dependency
READS = {get_args(kind)[1].dependency for kind in (Read, Snapshot, Export)}
# What a session for reading cannot end with.
OF_A_WRITE = {FaultKind.CONFLICT, FaultKind.OUTCOME_UNKNOWN}
PROBLEM = "application/problem+json"
PROBLEM_SCHEMA = "#/components/schemas/Problem"
RETRY_AFTER = {"description": "Seconds", "schema": {"type": "integer"}}
SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457; `type` tells problems of one status apart.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"description": "Of a problem of this service: a sentence."},
        "request_id": {"type": ["string", "null"]},
        "errors": {
            "description": "What is wrong in the request, of a 422.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "message"],
                "properties": {
                    "at": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

logger = logging.getLogger(__name__)


class DocumentedApp(FastAPI):
    """FastAPI, with the problems of each route in its API document."""

    def __init__(self, project: str, *, has_docs: bool, **options: Any) -> None:
        options |= {"title": project, **_described(project)}
        if not has_docs:
            options |= {"openapi_url": None}
        super().__init__(generate_unique_id_function=_name, **options)
        self._completed: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Duplicate Operation ID")
            document = super().openapi()
        if document is not self._completed:  # FastAPI builds one anew for a new route
            self._completed = document
            shared = self._shared_ids()
            for route in _routes(self):
                for method in route.methods or ():
                    operation = document["paths"][route.path_format][method.lower()]
                    _complete(operation, route, method, shared)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)  # what FastAPI would answer
            schemas["Problem"] = SCHEMA
        return document

    def warn_about_shared_ids(self) -> None:
        for name, routes in self._shared_ids().items():
            logger.warning(
                "operation id %s is that of %s: the API document has longer ones until"
                " you rename a function, or give its route an operation_id",
                *(name, " and ".join(routes)),
            )

    def _shared_ids(self) -> dict[str, list[str]]:
        """Routes by the operation id that they share."""
        found: dict[str, list[str]] = {}
        for route in _routes(self):
            routes = found.setdefault(route.operation_id or route.unique_id, [])
            routes += [f"{method} {route.path}" for method in sorted(route.methods)]
        return {name: routes for name, routes in found.items() if len(routes) > 1}


def _described(project: str) -> dict[str, str]:
    """Version and description, where the project itself is installed."""
    try:
        found = metadata(project)
    except PackageNotFoundError:
        return {}
    return {"version": found["Version"], "description": found["Summary"] or ""}


def _name(route: APIRoute) -> str:
    return route.name


def _routes(app: FastAPI) -> Iterator[Any]:
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            yield route


def _complete(
    operation: dict[str, Any], route: Any, method: str, shared: Container[str]
) -> None:
    if operation["operationId"] in shared:
        words = re.sub(r"\W+", "_", f"{method} {route.path}").strip("_").lower()
        operation["operationId"] += f"_{words}"
    answers = operation["responses"]
    is_validated = "HTTPValidationError" in str(answers.get("422"))
    if is_validated:
        del answers["422"]
    for status, text in _problems(operation, route, is_validated=is_validated).items():
        answers.setdefault(str(status), {"description": text})
    for status, answer in answers.items():
        if status.startswith(("4", "5")) and "content" not in answer:
            answer["content"] = {PROBLEM: {"schema": {"$ref": PROBLEM_SCHEMA}}}
        if status == "503":
            answer.setdefault("headers", {"Retry-After": RETRY_AFTER})


def _problems(
    operation: dict[str, Any], route: Any, *, is_validated: bool
) -> dict[int, str]:
    """By status: what happened."""
    found = {
        **({400: "The body cannot be read."} if "requestBody" in operation else {}),
        **({401: "Not known.", 403: "Not allowed."} if "security" in operation else {}),
        **({404: "There is nothing of this name."} if "{" in route.path else {}),
        **({413: "The body is too large."} if "requestBody" in operation else {}),
        **({422: "The request is not valid."} if is_validated else {}),
    }
    for kind in _faults(route.dependant):
        status, text = PROBLEMS[kind]
        known = f"{found[status]} " if status in found else ""
        found[status] = f"{known}`urn:problem:{kind}`: {text}"
    return found


def _faults(dependant: Dependant) -> list[FaultKind]:
    found = [*_flat(dependant)]
    calls = {each.call for each in found}
    writes = WRITES in calls or any(map(_has_database, found))
    if not (writes or calls & READS):
        return []
    return [kind for kind in PROBLEMS if writes or kind not in OF_A_WRITE]


def _has_database(dependant: Dependant) -> bool:
    """Whether a handler or a dependency has the request: it may open any session."""
    return (
        dependant.call not in READS
        and not isinstance(dependant.call, SecurityBase)
        and bool(dependant.request_param_name or dependant.http_connection_param_name)
    )


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _flat(inner)
