"""The column type for each annotation of a model, and how a migration writes it."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

TYPES: dict[Any, Any] = {
    datetime: sa.DateTime(timezone=True),
    int: sa.BigInteger(),
}
MIGRATION_OPTIONS: dict[str, Any] = {}
