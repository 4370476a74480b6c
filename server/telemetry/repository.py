"""Reading what runs have said: log bytes, events. Metric series: series.py."""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.models import Event, LogChunk, Run
from server.telemetry import series

_COLOURS = r"(?:\x1b\[[0-9;:]*m)*"


async def log_bytes(session: AsyncSession, run_id: str, after: int, limit: int) -> bytes:
    """Up to `limit` bytes of the run's log from offset `after` on."""
    mine = LogChunk.run_id == run_id
    # found by the key: `last > after` alone would look at every chunk before
    holding = select(func.max(LogChunk.first)).where(mine, LogChunk.first <= after).scalar_subquery()
    query = select(LogChunk.first, LogChunk.data).where(
        mine,
        LogChunk.first >= func.coalesce(holding, after),
        LogChunk.first < after + limit,
        LogChunk.last > after,
    )
    chunks = await session.execute(query.order_by(LogChunk.first))
    return b"".join(data[max(0, after - first) :] for first, data in chunks)[:limit]


def decode_prefix(data: bytes, final: bool) -> tuple[str, int]:
    """Text of `data` and how many bytes it took: a character that is cut at the end waits for its rest.

    Bytes that are no UTF-8 become U+FFFD. `final`: nothing follows, so nothing waits.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final)
    return text, len(data) - len(decoder.getstate()[0])


async def log_stream(
    session: AsyncSession, run_id: str, start: int = 0, piece: int = 512 * 1024
) -> AsyncIterator[bytes]:
    """The log from `start` on, piece by piece."""
    offset = start
    while data := await log_bytes(session, run_id, offset, piece):
        yield data
        offset += len(data)


async def search_log(
    session: AsyncSession, run: Run, needle: str, after: int, limit: int
) -> tuple[list[tuple[int, str]], int]:
    """Up to `limit` whole lines that hold `needle`, with offsets, and where the search stopped.

    Case does not count, nor do colours that stand within it.
    """
    wanted = needle.casefold()
    coloured = re.compile(_COLOURS.join(map(re.escape, wanted)))

    def holds(text: str) -> bool:
        return wanted in text or ("\x1b[" in text and coloured.search(text) is not None)

    found: list[tuple[int, str]] = []
    rest, offset, position = b"", after, after
    while data := await log_bytes(session, run.id, position, 512 * 1024):
        position += len(data)
        piece = rest + data
        whole = len(piece) if position >= run.log_end else piece.rfind(b"\n") + 1
        lines, rest = piece[:whole], piece[whole:]
        if not holds(lines.decode("utf-8", "replace").casefold()):
            offset += len(lines)  # as most of a long log: line by line it takes four times as long
            continue
        for line in lines.removesuffix(b"\n").split(b"\n"):
            text = line.decode("utf-8", "replace")
            if holds(text.casefold()):
                found.append((offset, text))
                if len(found) >= limit:
                    return found, min(offset + len(line) + 1, run.log_end)
            offset += len(line) + 1
    return found, run.log_end


@dataclass(slots=True)
class StoredEvent:
    """A trainer event as readers get it; a metric's values are `data["values"]`."""

    seq: int
    kind: str
    step: int | None
    t: float
    attempt: int
    data: dict[str, Any]


async def events(
    session: AsyncSession, run_id: str, after: int, limit: int, kinds: Sequence[str] = ()
) -> list[StoredEvent]:
    """Events with a sequence number above `after`, oldest first."""
    found = []
    if not kinds or set(kinds) != {"metric"}:
        query = select(Event).where(Event.run_id == run_id, Event.seq > after)
        if kinds:
            query = query.where(Event.kind.in_(kinds))
        for row in await session.scalars(query.order_by(Event.seq).limit(limit)):
            found.append(StoredEvent(row.seq, row.kind, row.step, row.t, row.attempt, row.data))
    if not kinds or "metric" in kinds:
        found += [_metric(*item) for item in await series.items(session, run_id, after, limit)]
        found.sort(key=lambda event: event.seq)
    return found[:limit]


async def newest(session: AsyncSession, run_id: str, kind: str) -> StoredEvent | None:
    """The last event of a kind that is no metric."""
    query = (
        select(Event).where(Event.run_id == run_id, Event.kind == kind).order_by(Event.seq.desc()).limit(1)
    )
    row = (await session.scalars(query)).first()
    return row if row is None else StoredEvent(row.seq, row.kind, row.step, row.t, row.attempt, row.data)


def _metric(attempt: int, item: dict[str, Any]) -> StoredEvent:
    data = {**item.get("data", {}), "values": item["values"]}
    return StoredEvent(item["seq"], "metric", item["step"], item["t"], attempt, data)
