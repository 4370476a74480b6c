"""Opaque keyset cursors: where a page ended, not how many rows to skip.

A cursor is `<microseconds since 1970>-<id>`, so that its schema says all: whatever has that form is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

from fastapi import Query
from pydantic import Field

from nanochat_client.types import ProblemItem
from nanochat_client.types.wire import Storable
from server.problems import Invalid

#: 16 digits end in the year 2286, which a datetime holds
PATTERN = r"^[0-9]{1,16}-[0-9A-Za-z]{1,16}$"
_CURSOR = re.compile(r"([0-9]{1,16})-([0-9A-Za-z]{1,16})")
_START = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)

Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[
    Annotated[str, Field(json_schema_extra={"pattern": PATTERN})] | None,
    Query(description="`next_cursor` of the page before"),
]
#: filters: what a column holds is compared with them, so that any text will do that a database takes
Text = Annotated[Storable | None, Query(max_length=64)]


class Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def encode(row: Row) -> str:
    """The cursor that goes on after `row`."""
    return f"{(row.created_at - _START) // _TICK}-{row.id}"


def decode(cursor: str | None) -> tuple[datetime, str] | None:
    """(created_at, id) of the last row seen. Raises Invalid for what has not the form of a cursor."""
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        message = "not a cursor of ours: pass next_cursor of the page before, or leave it out"
        raise Invalid(message, errors=[ProblemItem(pointer="/cursor", message=message)])
    return _START + int(found.group(1)) * _TICK, found.group(2)


def next_cursor(rows: Sequence[Row], limit: int) -> str | None:
    """Cursor after the first `limit` of `rows`, which were fetched with one to spare."""
    return encode(rows[limit - 1]) if len(rows) > limit else None
