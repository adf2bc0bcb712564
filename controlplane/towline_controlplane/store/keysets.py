"""Pages by keyset: rows in the order of one column and of their id, from behind the last one seen.

No row comes twice or is left out because others are added or deleted meanwhile; one whose column changes moves.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, tuple_

Place = tuple[int | str, str]
"""Where a page ended: the column and the id of its last row."""


@dataclass(frozen=True, slots=True)
class Order:
    """The name of the column; the id goes the same way."""

    column: str
    descending: bool = False

    def place(self, row: Any) -> Place:
        """Returns where a row stands in the order."""
        return getattr(row, self.column), row.id

    def page(self, query: Select[Any], table: Table, after: Place | None, limit: int) -> Select[Any]:
        """Returns the query for the next rows."""
        columns = (table.c[self.column], table.c.id)
        if after is not None:
            query = query.where(tuple_(*columns) < after if self.descending else tuple_(*columns) > after)
        return query.order_by(*(each.desc() if self.descending else each for each in columns)).limit(limit)


NEWEST_FIRST = Order("create_time", descending=True)
