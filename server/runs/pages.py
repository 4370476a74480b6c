"""Opaque keyset cursors: where a page ended, not how many rows to skip."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Protocol

from fastapi import Query

from nanochat_client.types import ProblemItem
from server.problems import Invalid

Limit = Annotated[int, Query(ge=1, le=200)]


class Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def encode(row: Row) -> str:
    """The cursor that goes on after `row`."""
    return base64.urlsafe_b64encode(json.dumps([row.created_at.isoformat(), row.id]).encode()).decode()


def decode(cursor: str | None) -> tuple[datetime, str] | None:
    """(created_at, id) of the last row seen. Raises Invalid for what no answer of ours contained."""
    if cursor is None:
        return None
    try:
        created_at, row_id = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        moment = datetime.fromisoformat(created_at)
        if moment.tzinfo is None or not isinstance(row_id, str) or "\0" in row_id:
            raise ValueError
        row_id.encode()  # half a character is no text to a database
        return moment.astimezone(UTC), row_id
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError):
        message = "not a cursor of ours: pass next_cursor of the page before, or leave it out"
        raise Invalid(message, errors=[ProblemItem(pointer="/cursor", message=message)]) from None


def next_cursor(rows: Sequence[Row], limit: int) -> str | None:
    """Cursor after the first `limit` of `rows`, which were fetched with one to spare."""
    return encode(rows[limit - 1]) if len(rows) > limit else None
