"""Text of a JSON column: what has no JSON type, as Pydantic writes it."""

import json
import re
from typing import Any

from pydantic import ConfigDict, TypeAdapter

_ANY = TypeAdapter[Any](Any, config=ConfigDict(ser_json_inf_nan="constants"))
# Written as \ud83c\udf75, if it is a character at all.
_SURROGATE = re.compile(r"\\ud[89a-f]")

_encode = json.JSONEncoder(allow_nan=False).encode


def json_text(value: Any) -> str:
    """A Decimal, a UUID, a time are texts, a set is a list.

    An OverflowError or UnicodeError for a value that JSON has not; a TypeError for a
    type that has no form in JSON.
    """
    try:
        try:
            text = _encode(value)
        except TypeError:  # of a type, or of a key
            text = _encode(_ANY.dump_python(value, mode="json", fallback=_reject))
        if _SURROGATE.search(text):
            json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise OverflowError(f"no JSON: {type(error).__name__}") from None
    return text


def _reject(value: Any) -> Any:
    raise TypeError(
        f"A JSON column cannot hold a value of type {type(value).__name__}: write a"
        " dict, a list, a text or a number."
    )
