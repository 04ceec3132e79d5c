"""Parses a URL of the environment strictly; no message repeats a part of it."""

import re
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import parse_qsl, unquote

from pydantic import SecretStr

from .backend import DIALECT, DRIVER, SCHEMES, SOCKET_PARAMETER

# What separates parts is in none of them (RFC 3986). Else the rest of a password behind
# an @ would be the host, which logs and metrics show.
URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"((?P<user>[^:@/?#]*)(:(?P<password>[^@/?#]*))?@)?"
    r"(?P<host>\[[^]@/?#]*]|[^]:@/?#[]*)(:(?P<port>[^@/?#]*))?"
    r"(/(?P<name>[^@/?#]*))?(\?(?P<query>[^@#]*))?",
    re.IGNORECASE,
)
WRONG_CODE = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
HOST = re.compile(r"[\w.-]+")
EXAMPLE = f"{SCHEMES[0]}://user:password@host/name"
PARAMETERS = (SOCKET_PARAMETER, "port", "sslmode", "sslrootcert")
ESCAPES = "in the password, @ is %40, / is %2F, ? is %3F, # is %23, % is %25"


def parse_url(url: str | SecretStr, variable: str = "DATABASE_URL") -> dict[str, Any]:
    """The settings that a URL contains; ValueError names the variable."""
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parts = split_url(text, EXAMPLE)
        _check_scheme(parts.pop("scheme"))
        parts |= _parameters(parts)
    except ValueError as error:
        raise ValueError(f"{variable} {error}.") from None
    return {f"database_{key}": part for key, part in parts.items() if part}


def split_url(text: str, example: str) -> dict[str, str]:
    """The parts, decoded, but not the query. ValueError is the rest of a sentence that
    begins with the variable.
    """
    text = text.strip()
    found = URL.fullmatch(text)
    if not found or WRONG_CODE.search(text):
        raise ValueError(f"is not a URL: write {example}; {ESCAPES}")
    try:
        parts = {
            key: part if key == "query" else unquote(part, errors="strict")
            for key, part in found.groupdict(default="").items()
        }
    except UnicodeDecodeError:
        raise ValueError("is not a URL: encode it as UTF-8") from None
    if re.search(r"\s", text) or CONTROL.search("".join(parts.values())):
        raise ValueError("has a blank or a control character: remove it")
    if "," in parts["host"] + parts["port"]:
        raise ValueError("names several hosts: name one, or answer with_replicas: yes")
    parts["host"] = parts["host"].strip("[]")
    if not is_host(parts["host"] or "localhost"):
        raise ValueError(f"is not a URL: its host is no name or address; {ESCAPES}")
    _check_port(parts["port"])
    return parts


def is_host(text: str) -> bool:
    """A name, an address, or the path of a local socket."""
    if text.startswith("/"):
        return "," not in text
    return bool(HOST.fullmatch(text)) or _is_ipv6(text)


def _check_scheme(scheme: str) -> None:
    if scheme.lower() not in (*SCHEMES, f"{DIALECT}+{DRIVER}"):
        raise ValueError(
            f"asks for {scheme}, but this service uses {DRIVER}:"
            f" write {DIALECT}+{DRIVER}:// or {SCHEMES[0]}://"
        )


def _parameters(parts: dict[str, str]) -> dict[str, str]:
    """What is behind the question mark, in the place of what is before it."""
    found = parse_qsl(parts.pop("query"))
    for name, value in found:
        if name not in PARAMETERS:
            shown = f"parameter {name}" if name.isidentifier() else "parameter"
            known = f"{', '.join(PARAMETERS[:-1])} and {PARAMETERS[-1]} are known"
            raise ValueError(f"has the unknown {shown}: remove it ({known})")
        if name == SOCKET_PARAMETER and not value.startswith("/"):
            raise ValueError(
                f"has {name}= without a path, which is that of a local socket:"
                " write another host before the name"
            )
    values = dict(found)
    if SOCKET_PARAMETER in values:
        values["host"] = values.pop(SOCKET_PARAMETER)
    if len(values) < len(found) or any(parts.get(name) for name in values):
        raise ValueError(
            "names a host, a socket, a port or a parameter twice: name one"
        )
    if not is_host(values.get("host", "localhost")):
        raise ValueError("names several local sockets: name one")
    _check_port(values.get("port", ""))
    return values


def _check_port(text: str) -> None:
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError(f"is not a URL: its port is no number to 65535; {ESCAPES}")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
