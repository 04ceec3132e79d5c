"""Read watermark: the replication position up to which a client has seen writes.

A position is a number for each domain of the log: position.py says which.
"""

import re
from contextvars import ContextVar
from dataclasses import dataclass, field

Position = dict[str, int]

# Ahead of every replica: reads go to the primary.
PRIMARY_ONLY: Position = {"primary": 1}
PART = r"[a-z0-9.~-]{0,90}:\d{1,20}"
TOKEN = re.compile(rf"{PART}(?:_{PART})*")
# A browser keeps a cookie of 4096 characters, with its name and attributes.
TOKEN_CHARACTERS = 3500


@dataclass
class ReadWatermark:
    """Of one client: what it has seen, and what was written on its behalf."""

    position: Position = field(default_factory=dict)
    written: Position = field(default_factory=dict)

    def add_written(self, position: Position) -> None:
        self.written = merge(self.written, position)
        self.position = merge(self.position, position)


# Of a request, or of a task from its first commit on.
current_watermark: ContextVar[ReadWatermark | None] = ContextVar(
    "current_watermark", default=None
)


def required_position() -> Position:
    """What a read of this request or task must see."""
    watermark = current_watermark.get()
    return watermark.position if watermark else {}


def add_written(position: Position) -> None:
    if not (watermark := current_watermark.get()):
        current_watermark.set(watermark := ReadWatermark())
    watermark.add_written(position)


def has_reached(position: Position, goal: Position) -> bool:
    return all(position.get(domain, 0) >= number for domain, number in goal.items())


def merge(one: Position, other: Position) -> Position:
    return {
        domain: max(one.get(domain, 0), other.get(domain, 0))
        for domain in {*one, *other}
    }


def encode_token(position: Position) -> str:
    """A token for a client: of more domains than it can hold, PRIMARY_ONLY."""
    token = "_".join(f"{domain}:{number}" for domain, number in position.items())
    return token if len(token) <= TOKEN_CHARACTERS else encode_token(PRIMARY_ONLY)


def decode_token(token: str) -> Position:
    """The position in a token of a client; empty if it is not one of ours."""
    if len(token) > TOKEN_CHARACTERS or not TOKEN.fullmatch(token):
        return {}
    parts = [part.rpartition(":") for part in token.split("_")]
    return {domain: int(number) for domain, _, number in parts}


def inject_token() -> str:
    """What a task must see, so that it reads the writes of its request."""
    return encode_token(required_position())


def extract_token(token: str | None) -> None:
    current_watermark.set(ReadWatermark(decode_token(token or "")))


# Header of a task's message, and how it is written and read.
READ_AFTER = ("read_after", inject_token, extract_token)
