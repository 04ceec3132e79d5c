"""The edge: hosts, origins, security headers, and an API document that is off."""

from typing import Any

import pytest
from fastapi import Response
from httpx2 import AsyncClient
from shop import main
from shop.settings import Settings

ORIGIN = "https://app.example.com"


def served(settings: Settings, serve: Any, **changes: object) -> Any:
    return serve(main.create_app(settings.model_copy(update=changes)))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 404) for host in ("api.example.com", "API.example.com:8443", "[::1]")),
        *((host, 404) for host in ("[::1]:8000", "a.b.example.org")),
        *((host, 400) for host in ("evil.example", "api.example.com.evil.example", "")),
        *((host, 400) for host in ("example.org", "xexample.org", "[::2]", "[::1]:x")),
        *(
            (host, 400)
            for host in ("api.example.com:", "evil.example:@api.example.com")
        ),
    ],
)
async def test_host_must_be_one_of_the_allowed(
    settings: Settings, serve: Any, host: str, status: int
) -> None:
    hosts = ("api.example.com", "[::1]", "*.example.org")
    async with served(settings, serve, allowed_hosts=hosts) as client:
        answer = await client.get("/nowhere", headers={"Host": host})
        probe = await client.get("/livez", headers={"Host": host})

    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert probe.status_code == 200


async def test_two_host_headers_are_rejected(settings: Settings, serve: Any) -> None:
    both = [("Host", "api.example.com"), ("Host", "evil.example")]
    async with served(settings, serve, allowed_hosts=("api.example.com",)) as client:
        answer = await client.get("/nowhere", headers=both)

    assert answer.status_code == 400


async def test_path_with_a_slash_behind_is_no_redirect(client: AsyncClient) -> None:
    answer = await client.get("/orders/")

    assert answer.status_code == 404


async def test_page_of_an_allowed_origin_reads_what_the_service_says(
    settings: Settings, serve: Any
) -> None:
    changes = {"cors_origins": (ORIGIN,), "cors_credentials": True}
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    async with served(settings, serve, **changes) as client:
        answer = await client.get("/nowhere", headers={"Origin": ORIGIN})
        asked = await client.options("/orders", headers=asks)
        other = await client.get("/nowhere", headers={"Origin": "https://evil.example"})

    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Retry-After", "X-Request-ID"} <= {*exposed}
    assert ("X-Read-After" in exposed) == hasattr(settings, "database_replica_urls")
    assert asked.status_code == 200
    assert "access-control-allow-origin" not in other.headers


async def test_answers_have_security_headers_unless_a_route_sets_its_own(
    settings: Settings, serve: Any
) -> None:
    app = main.create_app(settings)

    @app.get("/framed")
    async def framed(response: Response) -> None:
        response.headers["X-Frame-Options"] = "SAMEORIGIN"

    async with serve(app) as client:
        plain = await client.get("/nowhere")
        framed_answer = await client.get("/framed")
        encrypted = await client.get("https://test/nowhere")

    assert plain.headers["x-content-type-options"] == "nosniff"
    assert plain.headers["x-frame-options"] == "DENY"
    assert "strict-transport-security" not in plain.headers
    assert encrypted.headers["strict-transport-security"] == "max-age=31536000"
    assert framed_answer.headers.get_list("x-frame-options") == ["SAMEORIGIN"]


@pytest.mark.parametrize("docs", [False, True])
async def test_api_document_is_served_where_it_is_asked_for(
    settings: Settings, serve: Any, docs: bool
) -> None:
    async with served(settings, serve, docs=docs) as client:
        found = [
            (await client.get(path)).status_code
            for path in ("/docs", "/redoc", "/openapi.json")
        ]

    assert found == ([200] * 3 if docs else [404] * 3)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "ALLOWED_HOSTS",
            "https://api.example.com",
            "write names without scheme and p",
        ),
        ("ALLOWED_HOSTS", "api.example.com:443", "write names without scheme and port"),
        ("ALLOWED_HOSTS", "api.*.com", "write names without scheme and port"),
        ("FORWARDED_ALLOW_IPS", "proxy", "write addresses and networks, as 10.0.0.7"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1/8", "write addresses and networks, as 10.0."),
        ("FORWARDED_ALLOW_IPS", "*,10.0.0.1", "write addresses and networks, as 10.0."),
        ("CORS_ORIGINS", "app.example.com", "write origins without a path, as https:"),
        ("CORS_ORIGINS", f"{ORIGIN}/", "write origins without a path, as https://app."),
        ("DOCS", "perhaps", "Input should be a valid boolean"),
    ],
)
def test_wrong_variable_of_the_edge_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=f"^{variable}: {sentence}"):
        Settings.load()


def test_any_origin_with_credentials_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "*")
    monkeypatch.setenv("CORS_CREDENTIALS", "true")
    with pytest.raises(SystemExit, match=r"^CORS_ORIGINS=\* with CORS_CREDENTIALS"):
        Settings.load()
