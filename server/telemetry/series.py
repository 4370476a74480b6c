"""Metrics of a run: the events as they came (chunks), and the same as series (blocks) plus what came since.

A request adds one chunk. When enough of them have gathered, their points go into blocks, in the same
transaction. A reader takes the blocks, thinned as far as asked, and the tail out of the chunks, so it sees
every point whether packed or not, and the same points for the same question. A resumed attempt packs what was
there before it up to its resume step: a tail never holds what did not happen.
Not covered: two writers of one run at a time (the fence and the lock on the run exclude them).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import pairwise
from typing import Any
from zlib import crc32

import orjson
from sqlalchemy import and_, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from server.models import MetricBlock, MetricChunk, MetricHead
from server.telemetry.blocks import (
    BLOCK,
    COARSE,
    FINE,
    LEVELS,
    Columns,
    level,
    level_size,
    pack,
    thin,
    unpack,
)
from server.telemetry.blocks import ends as block_ends
from server.telemetry.downsample import NAN, kept
from server.telemetry.lines import TrainerEvent

CHUNK_EVENTS = 512
#: events, and rows, that are read beside the blocks before they are packed
TAIL_EVENTS = BLOCK
TAIL_CHUNKS = 128
#: points that are thinned on the event loop; more of them in a thread
INLINE_POINTS = 20_000
#: as `max_points`: every point there is
ALL = 2**62

Series = dict[str, Columns]
#: the first and the last step asked for
Span = tuple[int, int]
WHOLE: Span = (-(2**62), 2**62)


async def head_of(session: AsyncSession, run_id: str) -> MetricHead:
    """The run's head; a fresh one for its first metric."""
    head = await session.get(MetricHead, run_id)
    if head is None:
        head = MetricHead(run_id=run_id, keys=[], packed=0, tail_events=0, tail_chunks=0)
        session.add(head)
        await session.flush()
    return head


async def append(
    session: AsyncSession, head: MetricHead, attempt: int, events: Sequence[tuple[int, TrainerEvent]]
) -> None:
    """Store metric events with their sequence numbers."""
    rows = []
    for start in range(0, len(events), CHUNK_EVENTS):
        piece = events[start : start + CHUNK_EVENTS]
        data = orjson.dumps([_item(seq, event) for seq, event in piece])
        rows.append(
            {"run_id": head.run_id, "first": piece[0][0], "last": piece[-1][0], "attempt": attempt,
             "count": len(piece), "data": data}
        )  # fmt: skip
    if not rows:
        return
    await session.execute(insert(MetricChunk), rows)
    head.tail_events += len(events)
    head.tail_chunks += len(rows)
    if head.tail_events >= _enough(head.run_id) or head.tail_chunks >= TAIL_CHUNKS:
        await pack_tail(session, head, events[-1][0])


def _enough(run_id: str) -> int:
    """Events after which a run's tail is packed: between half of TAIL_EVENTS and all of it, by its id.

    Runs that began together would otherwise be packed together, and whoever ships then waits for them all.
    """
    return TAIL_EVENTS - crc32(run_id.encode()) % max(1, TAIL_EVENTS // 2)


def _item(seq: int, event: TrainerEvent) -> dict[str, Any]:
    item = {"seq": seq, "step": event.step, "t": event.t, "values": event.values}
    return {**item, "data": event.data} if event.data else item


async def rewind(session: AsyncSession, head: MetricHead, seq: int, step: int) -> None:
    """An attempt that resumes, or goes back, begins after `step`: what was measured later never happened.

    `seq` is that of the event which says so.
    """
    await pack_tail(session, head, seq, step)


async def pack_tail(session: AsyncSession, head: MetricHead, seq: int, until: int | None = None) -> None:
    """Bring the tail, which ends at `seq`, into blocks; of all series only what lies up to step `until`."""
    tail = await _tail(session, head)
    stored, numbers = await _ends(session, head.run_id, tail, until)
    names = {*tail, *stored}
    made = await asyncio.to_thread(_blocks, names, stored, tail, until)
    for number in set(numbers.values()):
        keys = [key for key in numbers if numbers[key] == number]
        gone = (MetricBlock.run_id == head.run_id, MetricBlock.key.in_(keys), MetricBlock.number >= number)
        await session.execute(delete(MetricBlock).where(*gone).execution_options(synchronize_session=False))
    rows = [
        {"run_id": head.run_id, "key": key, "number": numbers.get(key, 0) + place, **block}
        for key, blocks in made.items()
        for place, block in enumerate(blocks)
    ]
    if rows:
        await session.execute(insert(MetricBlock), rows)
    head.packed, head.tail_events, head.tail_chunks = seq, 0, 0
    await session.flush()


async def reduce(session: AsyncSession, head: MetricHead, seq: int, max_points: int) -> None:
    """Keep at most `max_points` of each series, minima and maxima among them, and no metric event at all.

    A series that has fewer keeps every point. `seq` is that of the run's newest event.
    """
    if head.tail_events:
        await pack_tail(session, head, seq)
    found = await read(session, head.run_id, [], max_points)
    made = await asyncio.to_thread(_blocks, list(found), {}, found, None)
    for table in (MetricBlock, MetricChunk):
        gone = delete(table).where(table.run_id == head.run_id)
        await session.execute(gone.execution_options(synchronize_session=False))
    rows = [
        {"run_id": head.run_id, "key": key, "number": number, **block}
        for key, blocks in made.items()
        for number, block in enumerate(blocks)
    ]
    if rows:
        await session.execute(insert(MetricBlock), rows)
    await session.flush()


def _blocks(
    names: Iterable[str], stored: Series, tail: Series, until: int | None
) -> dict[str, list[dict[str, Any]]]:
    made = {}
    for key in names:
        points = _merged(stored.get(key), tail.get(key))
        points = points if until is None else points.until(until)
        made[key] = [
            {"last_step": block.last_step, "count": block.count, "coarse": block.coarse,
             "fine": block.fine, "points": block.points}
            for block in pack(points)
        ]  # fmt: skip
    return made


def _merged(stored: Columns | None, tail: Columns | None) -> Columns:
    points = stored or Columns()
    if tail:
        points.merge(tail)
    return points


async def _tail(session: AsyncSession, head: MetricHead, keys: Iterable[str] = ()) -> Series:
    """The points that are not in blocks yet, of these keys (all when none is named)."""
    query = select(MetricChunk.data).where(MetricChunk.run_id == head.run_id, MetricChunk.last > head.packed)
    found: Series = defaultdict(Columns)
    wanted = set(keys)
    for data in await session.scalars(query.order_by(MetricChunk.first)):
        events = orjson.loads(data)
        names = events[0]["values"].keys()
        if all(event["values"].keys() == names for event in events):
            _put_all(found, events, [key for key in names if not wanted or key in wanted])
            continue
        for event in events:
            step, t = event["step"], event["t"]
            for key, value in event["values"].items():
                if not wanted or key in wanted:
                    found[key].put(step, t, value)
    return found


def _put_all(found: Series, events: list[dict[str, Any]], keys: Iterable[str]) -> None:
    """Add events that all have the same keys, as most have: a column at a time."""
    steps, times = [event["step"] for event in events], [event["t"] for event in events]
    rising = all(earlier < later for earlier, later in pairwise(steps))
    for key in keys:
        points, values = found[key], [event["values"][key] for event in events]
        if rising and (not points.steps or steps[0] > points.steps[-1]):
            numbers = [NAN if value is None else float(value) for value in values]
            points.extend(Columns(steps, times, numbers))
        else:
            for step, t, value in zip(steps, times, values, strict=True):
                points.put(step, t, value)


async def _ends(
    session: AsyncSession, run_id: str, tail: Series, until: int | None = None
) -> tuple[Series, dict[str, int]]:
    """The ends of the stored series that change: their points, and the number of the block they begin with.

    Of a series in `tail` from the first block on that is not full or reaches its first new step; with `until`
    also of all others what reaches beyond that step.
    """
    if not tail and until is None:
        return {}, {}
    first = min((points.steps[0] for points in tail.values()), default=2**62)
    reach = first if until is None else min(first, until + 1)
    changes: ColumnElement[bool] = or_(MetricBlock.last_step >= reach, MetricBlock.count < BLOCK)
    if until is None:
        changes = and_(changes, MetricBlock.key.in_(tail))
    query = select(MetricBlock.key, MetricBlock.number, MetricBlock.points)
    query = query.where(MetricBlock.run_id == run_id, changes)
    stored: Series = defaultdict(Columns)
    numbers: dict[str, int] = {}
    for key, number, points in await session.execute(query.order_by(MetricBlock.key, MetricBlock.number)):
        numbers.setdefault(key, number)
        stored[key].extend(unpack(points))
    return stored, numbers


async def read(
    session: AsyncSession, run_id: str, keys: Sequence[str], max_points: int, span: Span = WHOLE
) -> Series:
    """Points by key in order of step, at most `max_points` of each; of all keys when none is named.

    Fewer come when a series is long: between half of `max_points` and all of it. With a `span` come
    the points in it, and one more on each side if its block is read anyway: so a line leaves the picture.
    """
    head = await session.get(MetricHead, run_id)
    if head is None:
        return {}
    names = [key for key in head.keys if not keys or key in keys]
    tail = await _tail(session, head, names)
    stored, numbers = await _ends(session, run_id, tail)
    ends = {key: _merged(stored.get(key), points).around(*span) for key, points in tail.items()}
    counts = await _counts(session, run_id, names, numbers, span)
    sizes = {
        key: _size([*counts[key].values(), *map(len, _pieces(ends.get(key)))], max_points) for key in names
    }
    found: Series = {key: Columns() for key in names if counts[key] or ends.get(key)}
    both: Series = {}  # the first and the last point of each, which a level may lack
    async for key, count, data in _rows(session, run_id, sizes, counts):
        if sizes[key] == 1:
            found[key].extend(unpack(data))
            continue
        found[key].extend(level(count, data, sizes[key]))
        first_last = block_ends(count, data)
        both[key] = _first_last(both.get(key, first_last), first_last)
    for key, points in ends.items():
        if not points:
            continue
        both[key] = _first_last(both.get(key, points), points)
    if sum(map(len, found.values())) + sum(map(len, ends.values())) < INLINE_POINTS:
        return _finish(found, ends, both, sizes, max_points, span)
    return await asyncio.to_thread(_finish, found, ends, both, sizes, max_points, span)


def _first_last(earlier: Columns, later: Columns) -> Columns:
    points = earlier.cut(0, 1)
    points.extend(later.cut(len(later) - 1, len(later)))
    return points


def _finish(
    found: Series, ends: Series, both: Series, sizes: dict[str, int], max_points: int, span: Span
) -> Series:
    """Append the ends that are not in blocks, thinned alike; see to the first and the last point."""
    answer = {}
    for key, points in found.items():
        for piece in _pieces(ends.get(key)):
            points.extend(piece if sizes[key] == 1 else thin(piece, sizes[key]))
        if sizes[key] > 1:
            first, last = both[key].cut(0, 1), both[key].cut(1, 2)
            if first.steps[0] < points.steps[0]:
                first.extend(points)
                points = first
            if last.steps[0] > points.steps[-1]:
                points.extend(last)
        points = points.around(*span)
        answer[key] = points if len(points) <= max_points else points.pick(kept(points.values, max_points))
    return answer


def _pieces(points: Columns | None) -> list[Columns]:
    return list(points.pieces()) if points else []


async def _counts(
    session: AsyncSession, run_id: str, names: Sequence[str], numbers: dict[str, int], span: Span
) -> dict[str, dict[int, int]]:
    """Number → points of every block that is read as it is and touches the span, by key."""
    query = select(MetricBlock.key, MetricBlock.number, MetricBlock.count, MetricBlock.last_step)
    query = query.where(MetricBlock.run_id == run_id, MetricBlock.key.in_(names))
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    passed: dict[str, int] = {}  # the last step of the block before
    for key, number, count, last_step in await session.execute(
        query.order_by(MetricBlock.key, MetricBlock.number)
    ):
        beyond = passed.get(key, span[0] - 1) > span[1]
        passed[key] = last_step
        if number < numbers.get(key, number + 1) and last_step >= span[0] and not beyond:
            counts[key][number] = count
    return counts


def _size(counts: Sequence[int], max_points: int) -> int:
    """Points a bucket: 1 (all of them) for a series that is thinned in one go, else what fits."""
    if sum(counts) <= LEVELS[0] // 2 * max_points:
        return 1
    for size in LEVELS:
        if 2 + sum(level_size(count, size) for count in counts) <= max_points:
            return size
    return LEVELS[-1]


async def _rows(
    session: AsyncSession, run_id: str, sizes: dict[str, int], counts: dict[str, dict[int, int]]
) -> AsyncIterator[tuple[str, int, bytes]]:
    """(key, count, the column that holds the key's level) of every block in `counts`, in order."""
    columns = ((MetricBlock.points, (1,)), (MetricBlock.fine, FINE), (MetricBlock.coarse, COARSE))
    for column, levels in columns:
        names = [key for key, size in sizes.items() if size in levels]
        if not names:
            continue
        query = select(MetricBlock.key, MetricBlock.number, MetricBlock.count, column)
        wanted = {number for key in names for number in counts[key]}
        if not wanted:
            continue
        query = query.where(
            MetricBlock.run_id == run_id,
            MetricBlock.key.in_(names),
            MetricBlock.number.between(min(wanted), max(wanted)),
        )
        for key, number, count, data in await session.execute(
            query.order_by(MetricBlock.key, MetricBlock.number)
        ):
            if number in counts[key]:
                yield key, count, data


async def items(
    session: AsyncSession, run_id: str, after: int, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    """(attempt, event) of up to `limit` metric events with a sequence number above `after`, oldest first."""
    mine = MetricChunk.run_id == run_id
    sizes = select(MetricChunk.first, MetricChunk.count).where(mine, MetricChunk.last > after)
    first = last = None
    room = limit + CHUNK_EVENTS  # of the first chunk only some may be above `after`
    for start, count in await session.execute(sizes.order_by(MetricChunk.first).limit(limit + 1)):
        first, last = start if first is None else first, start
        room -= count
        if room <= 0:
            break
    if first is None:
        return []
    found: list[tuple[int, dict[str, Any]]] = []
    query = select(MetricChunk.attempt, MetricChunk.data).where(mine, MetricChunk.first.between(first, last))
    for attempt, data in await session.execute(query.order_by(MetricChunk.first)):
        found += [(attempt, item) for item in orjson.loads(data) if item["seq"] > after]
    return found[:limit]
