"""What clients send back of a page and a download: a cursor, a Range header. As we made it, or refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from server.checkpoints.archive import first_byte
from server.problems import Invalid
from server.runs.pages import decode, encode
from tests.fuzz.promises import storable_text

MAX_BYTES = 512
IS_JSON = True
WORDS = (
    "bytes=", "-", "0", "999999999999999999", "٣", " ", "0001-01-01T00:00:00+14:00", "Z", "W1",
    "9999-12-31T23:59:59-12:00", "+00:00", "\\ud800", "\\u0000", "null", "[", "]", '", "',
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    created_at: datetime
    id: str


def seeds() -> Iterator[bytes]:
    """Cursors, what is in them, Range headers."""
    for moment in (datetime(2026, 11, 25, 12, 30, 1, 250_000, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)):
        cursor = encode(Row(moment, "r0123456789"))
        yield cursor.encode()
        yield base64.urlsafe_b64decode(cursor)
    yield b'["2026-11-25T12:30:01-09:30", "r1"]'
    for text in ("bytes=0-", "bytes=1048576-", "bytes=0-99", "bytes=-5", "bytes=1-, 2-", " bytes=7-"):
        yield text.encode()


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    start = first_byte(text, None, '"e"')
    assert start is None or 0 <= start < 10**18
    assert first_byte(text, '"another"', '"e"') is None
    for cursor in (text, base64.urlsafe_b64encode(data).decode()):
        try:
            found = decode(cursor)
        except Invalid as error:
            assert error.errors[0].pointer == "/cursor"
            continue
        assert found is not None
        moment, row_id = found
        storable_text(row_id)
        assert moment.utcoffset() is not None
        moment.astimezone(UTC)  # as the database's column does
        assert decode(encode(Row(moment, row_id))) == found
        json.dumps(row_id)
