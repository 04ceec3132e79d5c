"""A position in the log of all writes, by domain: which writes somebody has seen."""

import re
from contextvars import ContextVar
from dataclasses import dataclass, field

Position = dict[str, int]

# Behind every log: only the primary has come so far.
NOWHERE: Position = {"primary": 1}
TOKEN = re.compile(r"[a-z0-9-]{0,36}:\d{1,20}(?:_[a-z0-9-]{0,36}:\d{1,20}){0,15}")


@dataclass
class Seen:
    """What a client has seen, and what was written on its behalf."""

    position: Position = field(default_factory=dict)
    written: Position = field(default_factory=dict)

    def add(self, position: Position) -> None:
        self.written = union(self.written, position)
        self.position = union(self.position, position)


# Of a request; else of a task, from its first commit on.
SEEN: ContextVar[Seen | None] = ContextVar("seen", default=None)


def includes(mine: Position, other: Position) -> bool:
    return all(mine.get(domain, 0) >= number for domain, number in other.items())


def union(one: Position, other: Position) -> Position:
    return {
        domain: max(one.get(domain, 0), other.get(domain, 0))
        for domain in {*one, *other}
    }


def to_token(position: Position) -> str:
    return "_".join(f"{domain}:{number}" for domain, number in position.items())


def from_token(token: str) -> Position:
    """What somebody says to have seen: nothing if it is not one of our tokens."""
    if not TOKEN.fullmatch(token):
        return {}
    parts = [part.rpartition(":") for part in token.split("_")]
    return {domain: int(number) for domain, _, number in parts}
