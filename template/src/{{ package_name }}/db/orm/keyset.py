"""Pages by key: page 1,000 costs what the first does, and no row is missing or there
twice because others came between two pages.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from sqlalchemy import DateTime, and_, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute

# Microseconds since the year 1 and the id, of the last row of a page.
Cursor = Annotated[str, Query(pattern="^[0-3][0-9]{17}[0-9a-f]{32}$")]
EPOCH = datetime(1, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


class Keyset:
    """The order of a list by a time and an id, which need an index together.

    TypeError if the time has no zone: it would not be the same one in the cursor.
    """

    def __init__(
        self, at: InstrumentedAttribute[datetime], row_id: InstrumentedAttribute[UUID]
    ) -> None:
        if isinstance(at.type, DateTime) and not at.type.timezone:
            raise TypeError(f"{at} has no time zone: declare `Mapped[datetime]` alone.")
        self.columns = (at, row_id)
        self.newest_first = (at.desc(), row_id.desc())
        last = [bindparam(each.key, type_=each.type) for each in self.columns]
        # The first condition finds the page where rows are compared without an index.
        self.is_after_cursor = and_(
            at <= last[0], tuple_(*self.columns) < tuple_(*last)
        )

    def cursor(self, row: object) -> str:
        """Of the page that begins after this row."""
        at, row_id = (getattr(row, each.key) for each in self.columns)
        return f"{(at - EPOCH) // MICROSECOND:018}{row_id.hex}"

    def values(self, cursor: str | None) -> dict[str, Any]:
        """Those of the parameters of `is_after_cursor`."""
        if not cursor:
            return {}
        at = EPOCH + MICROSECOND * min(int(cursor[:18]), LATEST)
        keys = (each.key for each in self.columns)
        return dict(zip(keys, (at, UUID(cursor[18:])), strict=True))
