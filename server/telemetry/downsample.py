"""Fewer points that look the same: of every bucket the lowest and the highest stay. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float | None]


def downsample(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most `max_points` (2 or more) of `points`, in order: first, last, and extremes of equal buckets.

    Same points, same answer. The global minimum and maximum always stay; gaps (None) only where a whole
    bucket is one.
    """
    count = len(points)
    if count <= max_points:
        return list(points)
    if max_points < 4:
        return [points[0], points[-1]][:max_points]
    buckets = (max_points - 2) // 2
    inner = count - 2
    kept = [points[0]]
    for bucket in range(buckets):
        start, end = 1 + bucket * inner // buckets, 1 + (bucket + 1) * inner // buckets
        kept += _extremes(points, start, end)
    kept.append(points[-1])
    return kept


def _extremes(points: Sequence[Point], start: int, end: int) -> list[Point]:
    low = high = -1
    for index in range(start, end):
        value = points[index][1]
        if value is None:
            continue
        if low < 0 or value < _value(points[low]):
            low = index
        if high < 0 or value > _value(points[high]):
            high = index
    if low < 0:
        return [points[start]] if start < end else []
    return [points[index] for index in sorted({low, high})]


def _value(point: Point) -> float:
    assert point[1] is not None
    return point[1]
