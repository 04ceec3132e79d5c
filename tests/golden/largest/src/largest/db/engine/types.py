"""Column types for annotations of models, where those of SQLAlchemy lose something."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from ..json_text import json_text as json_text

DATETIME = sa.DateTime(timezone=True)
TIME = sa.Time()
JSON = postgresql.JSONB(none_as_null=True)
TYPES: dict[Any, Any] = {int: sa.BigInteger()}
# An annotation without a type that keeps its values, and what helps.
REJECTED: dict[Any, str] = {}
# Generic types whose columns lose something here: by a column, the type that does not.
WIDER: dict[Any, Any] = {}
MIGRATION_OPTIONS: dict[str, Any] = {}
