"""The API document: problems that follow from a session, names, what is left out."""

import json
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from shop.db import Export, Read, Snapshot, Write

PROBLEM = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
}


class Thing(BaseModel):
    size: int


def document_of(app: FastAPI, path: str = "/probe") -> dict[str, Any]:
    """The operation of a path, of the document as it is served."""
    document: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    (operation,) = document["paths"][path].values()
    return dict(operation)


def test_probes_and_metrics_are_not_in_it(app: FastAPI) -> None:
    paths = app.openapi()["paths"]

    assert {path.split("/")[1] for path in paths} == {"orders"}


def test_title_version_and_description_are_those_of_the_project(app: FastAPI) -> None:
    assert app.openapi()["info"] == {
        "title": "shop",
        "version": "0.1.0",
        "description": "A FastAPI service on an async database",
    }


def test_answers_follow_from_the_session(app: FastAPI) -> None:
    async def inner(session: Write) -> None: ...

    async def writes(session: Write) -> None: ...

    async def by_dependency(_: Annotated[None, Depends(inner)]) -> None: ...

    async def with_request(request: Request) -> None: ...

    async def reads(session: Read) -> None: ...

    async def sees_one_state(session: Snapshot) -> None: ...

    async def exports(export: Export) -> None: ...

    async def neither() -> None: ...

    kinds = (
        writes,
        by_dependency,
        with_request,
        reads,
        sees_one_state,
        exports,
        neither,
    )
    for kind in kinds:
        app.get(f"/{kind.__name__}")(kind)
    found = {
        kind.__name__: {
            status
            for status in document_of(app, f"/{kind.__name__}")["responses"]
            if status not in ("200", "422")
        }
        for kind in kinds
    }

    assert found["writes"] == found["by_dependency"] == {"409", "503", "504"}
    assert found["with_request"] == {"409", "503", "504"}
    assert found["reads"] == found["sees_one_state"] == found["exports"] == {"503"}
    assert found["neither"] == set()


def test_dependency_with_the_request_may_open_any_session(app: FastAPI) -> None:
    async def opens(request: Request) -> None: ...

    @app.get("/probe")
    async def probe(_: Annotated[None, Depends(opens)]) -> None: ...

    @app.get("/token")
    async def with_token(_: Annotated[Any, Depends(HTTPBearer())]) -> None: ...

    assert {"409", "503", "504"} <= {*document_of(app)["responses"]}
    assert not {"409", "503", "504"} & {*document_of(app, "/token")["responses"]}


def test_problems_have_one_schema_and_a_503_its_header(app: FastAPI) -> None:
    @app.post("/probe", responses={402: {}, 409: {"description": "Mine."}})
    async def probe(thing: Thing, session: Write) -> None: ...

    answers = document_of(app)["responses"]

    assert {*answers} >= {"400", "402", "409", "413", "422", "503", "504"}
    for status in {*answers} - {"200"}:
        assert answers[status]["content"] == PROBLEM
    assert answers["409"]["description"] == "Mine."
    assert answers["503"]["headers"]["Retry-After"]["schema"] == {"type": "integer"}
    assert "HTTPValidationError" not in json.dumps(app.openapi())


def test_path_parameter_and_security_have_their_answers(app: FastAPI) -> None:
    @app.get("/probe/{name}", dependencies=[Depends(HTTPBearer())])
    async def probe(name: str) -> None: ...

    assert {"401", "403", "404"} <= {*document_of(app, "/probe/{name}")["responses"]}


def test_operation_id_is_the_name_of_the_function(app: FastAPI) -> None:
    found = {
        operation["operationId"]
        for path in app.openapi()["paths"].values()
        for operation in path.values()
    }

    assert found >= {"create_order", "list_orders", "get_order", "pay_order"}


def test_functions_of_one_name_are_told_apart_and_named_in_the_log(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    async def find() -> None: ...

    inner = APIRouter()
    inner.add_api_route("/things", find)
    app.include_router(inner, prefix="/a")
    app.include_router(inner, prefix="/b/{name}")
    app.warn_about_shared_ids()

    assert document_of(app, "/a/things")["operationId"] == "find_get_a_things"
    assert document_of(app, "/b/{name}/things")["operationId"] == (
        "find_get_b_name_things"
    )
    assert "operation id find is that of GET /a/things and GET /b/" in caplog.text
