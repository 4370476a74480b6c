"""What clients send back of a page and a download: a cursor, a Range header. As we made it, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from server.checkpoints.archive import first_byte
from server.problems import Invalid
from server.runs.pages import PATTERN, decode, encode
from tests.fuzz.promises import storable_text

MAX_BYTES = 128
IS_JSON = False
WORDS = ("bytes=", "-", "0", "9999999999999999", "999999999999999999", "٣", "ⅷ", " ", "r1", "\n", "\0")


@dataclass(frozen=True)
class Row:
    created_at: datetime
    id: str


def seeds() -> Iterator[bytes]:
    """Cursors, what is in them, Range headers."""
    for moment in (datetime(2026, 11, 25, 12, 30, 1, 250_000, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)):
        yield encode(Row(moment, "r0123456789")).encode()
    for text in ("bytes=0-", "bytes=1048576-", "bytes=0-99", "bytes=-5", "bytes=1-, 2-", " bytes=7-"):
        yield text.encode()


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    start = first_byte(text, None, '"e"')
    assert start is None or 0 <= start < 10**18
    assert first_byte(text, '"another"', '"e"') is None
    is_one = re.fullmatch(PATTERN.removesuffix("$"), text) is not None  # $ would let a newline follow
    try:
        found = decode(text)
    except Invalid as error:
        assert error.errors[0].pointer == "/cursor" and not is_one
        return
    assert found is not None and is_one
    moment, row_id = found
    storable_text(row_id)
    moment.astimezone(UTC)  # as the database's column does
    assert decode(encode(Row(moment, row_id))) == found
