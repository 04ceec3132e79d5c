"""Variables of the web service."""

import re
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from ..db.config.environment import EnvironmentSettings

HOST = re.compile(r"(\*\.)?[a-z0-9_.-]+|\[[0-9a-f:.]+]|\*")
ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+])(:\d+)?|\*")


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [each.strip() for each in value.split(",") if each.strip()]


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class WebSettings(EnvironmentSettings):
    port: int = Field(default=8000, ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # A body is held in memory, once for each request in progress.
    max_body_bytes: PositiveInt = 1_000_000

    # The lists are separated by commas.
    # What a Host header may name: api.example.com,*.example.com. Empty: anything.
    allowed_hosts: Listed = ()
    # The proxies whose X-Forwarded-For and X-Forwarded-Proto are true: addresses,
    # networks, or * where only the proxy can reach this process.
    forwarded_allow_ips: Listed = ("127.0.0.1", "::1")
    # Origins whose pages may call this service: https://app.example.com, or *
    cors_origins: Listed = ()
    # Whether those calls may carry cookies.
    cors_credentials: bool = False
    # Serve /docs, /redoc and /openapi.json.
    docs: bool = False

    @property
    def ports(self) -> set[int]:
        """What the server listens to."""
        return {self.port}

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(host.lower() for host in hosts)
        if not all(map(HOST.fullmatch, lower)):
            raise ValueError(
                "write names without scheme and port, as api.example.com,*.example.com"
            )
        return lower

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for proxy in proxies if proxies != ("*",) else ():
                ip_network(proxy)
        except ValueError:
            raise ValueError(
                "write addresses and networks, as 10.0.0.7,192.168.0.0/16, or * alone"
            ) from None
        return proxies

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(origin.lower() for origin in origins)
        if not all(map(ORIGIN.fullmatch, lower)):
            raise ValueError(
                "write origins without a path, as https://app.example.com,http://localhost:3000"
            )
        return lower

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if self.cors_credentials and "*" in self.cors_origins:
            raise ValueError(
                "CORS_ORIGINS=* with CORS_CREDENTIALS would let every page act for its"
                " visitor: list the origins."
            )
        return self
