"""Metric series as packed columns: what a block of one (run, key) looks like, and how it is made and read.

A block holds up to `BLOCK` consecutive points of a series in order of step. `points` is three columns one
after another: step (int64), time (float64, unix seconds), value (float64, NaN where a trainer said null), all
little-endian. `coarse` and `fine` hold the same series thinned: first the two ends, then for some powers of
two the lowest and the highest point of every so many. So a chart of 100,000 steps reads 800 points.

Sizes follow from `count` alone: a level of `size` points a bucket has 2 points for each full bucket and
min(2, rest) for the rest. Only the standard library is used: the server loads no numpy.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.telemetry.downsample import NAN, extremes

BLOCK = 4096
#: points a bucket, by the column that has the level
FINE = (16, 32, 64)
COARSE = (128, 256, 512, 1024, 2048, 4096)
LEVELS = FINE + COARSE
POINT_BYTES = 24


@dataclass
class Columns:
    """Points in order of step; a value that is no number is NaN."""

    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    def put(self, step: int, time: float, value: float | None) -> None:
        """Add a point; one that is there already is replaced."""
        number = NAN if value is None else float(value)
        if not self.steps or step > self.steps[-1]:
            self.steps.append(step)
            self.times.append(time)
            self.values.append(number)
            return
        at = bisect_left(self.steps, step)
        if self.steps[at] == step:
            self.times[at], self.values[at] = time, number
        else:
            self.steps.insert(at, step)
            self.times.insert(at, time)
            self.values.insert(at, number)

    def extend(self, other: Columns) -> None:
        """Append points that all come after these."""
        self.steps += other.steps
        self.times += other.times
        self.values += other.values

    def merge(self, newer: Columns) -> None:
        """Add points wherever they belong; a newer one replaces an older of the same step."""
        if not self.steps or not newer.steps or newer.steps[0] > self.steps[-1]:
            self.extend(newer)
            return
        points = dict(zip(self.steps, zip(self.times, self.values, strict=True), strict=True))
        points.update(zip(newer.steps, zip(newer.times, newer.values, strict=True), strict=True))
        self.steps = sorted(points)
        self.times = [points[step][0] for step in self.steps]
        self.values = [points[step][1] for step in self.steps]

    def cut(self, start: int, end: int) -> Columns:
        return Columns(self.steps[start:end], self.times[start:end], self.values[start:end])

    def until(self, step: int) -> Columns:
        """The points up to `step`, itself included."""
        return self.cut(0, bisect_left(self.steps, step + 1))

    def around(self, first: int, last: int) -> Columns:
        """The points of steps `first` to `last`, and one more on each side where there is one."""
        start, end = bisect_left(self.steps, first) - 1, bisect_left(self.steps, last + 1) + 1
        return self if start <= 0 and end >= len(self) else self.cut(max(0, start), end)

    def pick(self, places: Sequence[int]) -> Columns:
        steps, times, values = self.steps, self.times, self.values
        return Columns([steps[i] for i in places], [times[i] for i in places], [values[i] for i in places])

    def pieces(self) -> Iterator[Columns]:
        """`BLOCK` points each, the last one what is left."""
        for start in range(0, len(self), BLOCK):
            yield self.cut(start, start + BLOCK)


@dataclass(slots=True)
class Block:
    """What a row of `metric_blocks` holds of its points."""

    last_step: int
    count: int
    coarse: bytes
    fine: bytes
    points: bytes


def pack(points: Columns) -> Iterator[Block]:
    """Blocks of `BLOCK` points each, the last one of what is left."""
    for piece in points.pieces():
        levels, finer, size = {}, piece, FINE[0]
        for level in LEVELS:
            levels[level] = finer = thin(finer, size)
            size = 4  # two points of each of two finer buckets
        ends = piece.pick(sorted({0, len(piece) - 1}))
        yield Block(
            last_step=piece.steps[-1],
            count=len(piece),
            coarse=b"".join(map(_to_bytes, [ends, *(levels[level] for level in reversed(COARSE))])),
            fine=b"".join(map(_to_bytes, [ends, *(levels[level] for level in reversed(FINE))])),
            points=_to_bytes(piece),
        )


def thin(points: Columns, size: int) -> Columns:
    """Of every `size` points the lowest and the highest, in order: always two where there are two."""
    values, kept = points.values, []
    for start in range(0, len(values), size):
        bucket = values[start : start + size]
        if len(bucket) == 1:
            kept.append(start)
            continue
        first, second = extremes(bucket)
        if first == second:
            second = 0 if first else len(bucket) - 1
        kept += (start + first, start + second) if first < second else (start + second, start + first)
    return points.pick(kept)


def unpack(data: bytes, start: int = 0, count: int | None = None) -> Columns:
    """`count` points from byte `start` on; all of them when no count is given."""
    count = len(data) // POINT_BYTES if count is None else count
    width = 8 * count
    ends = (start, start + width, start + 2 * width, start + 3 * width)
    return Columns(*(_from_bytes(c, data[a:b]) for c, a, b in zip("qdd", ends, ends[1:], strict=False)))


def level_size(count: int, size: int) -> int:
    """Points that a block of `count` has at `size` points a bucket."""
    return 2 * (count // size) + min(2, count % size)


def level(count: int, data: bytes, size: int) -> Columns:
    """One level of a block of `count` points; `data` is its `fine` or `coarse`, whichever has that level."""
    start = min(2, count)  # the ends
    for coarser in reversed(FINE if size in FINE else COARSE):
        if coarser == size:
            break
        start += level_size(count, coarser)
    return unpack(data, start * POINT_BYTES, level_size(count, size))


def ends(count: int, data: bytes) -> Columns:
    """The first and the last point of a block; `data` is its `fine` or `coarse`."""
    return unpack(data, 0, min(2, count))


def _to_bytes(points: Columns) -> bytes:
    columns: list[array[Any]] = [
        array("q", points.steps), array("d", points.times), array("d", points.values),
    ]  # fmt: skip
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    return b"".join(column.tobytes() for column in columns)


def _from_bytes(code: str, data: bytes) -> list[Any]:
    column = array(code)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tolist()
