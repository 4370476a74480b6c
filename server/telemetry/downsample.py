"""Fewer points that look the same: of every bucket the lowest and the highest stay. Pure Python.

Gaps are NaN: a trainer said null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NAN = math.nan


def kept(values: Sequence[float], max_points: int) -> list[int]:
    """Places of at most `max_points` (2 or more) values: first, last, and extremes of equal buckets.

    Same values, same answer. The global minimum and maximum always stay; gaps only where a whole bucket is
    one, and at the ends.
    """
    count = len(values)
    if count <= max_points:
        return list(range(count))
    if max_points < 4:
        return [0, count - 1][:max_points]
    buckets, inner = (max_points - 2) // 2, count - 2
    places = [0]
    for bucket in range(buckets):
        start, end = 1 + bucket * inner // buckets, 1 + (bucket + 1) * inner // buckets
        low, high = extremes(values[start:end])
        places += [start + low] if low == high else sorted((start + low, start + high))
    places.append(count - 1)
    return places


def extremes(bucket: Sequence[float]) -> tuple[int, int]:
    """Where the lowest and the highest value are, the first of equals; (0, 0) when all are gaps."""
    low, high = min(bucket), max(bucket)
    if math.isnan(sum(bucket)):  # NaN compares with nothing, so it may have been taken for an extreme
        numbers = [value for value in bucket if value == value]
        if not numbers:
            return 0, 0
        low, high = min(numbers), max(numbers)
    return bucket.index(low), bucket.index(high)
