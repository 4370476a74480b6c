"""Charts of characters: a curve in braille dots, a bar in eighths of a block.

Pure functions of numbers and a size in columns and rows. Not covered: terminals whose font has no braille.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: bit of the dot at (row, column) of a braille cell; a cell is 4 dots high and 2 wide
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800
EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, columns: int) -> str:
    """A bar of `columns` characters, filled from the left to `share` (0…1; others are cut to that)."""
    eighths = round(min(max(share, 0.0), 1.0) * columns * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(columns, "·")


def curve(xs: Sequence[float], ys: Sequence[float], columns: int, rows: int) -> list[str]:
    """`rows` lines of `columns` braille characters: the curve through the points, highest value on top.

    Each column of dots shows the lowest to the highest value of its points, joined with its neighbour's, so
    that a spike is seen however many points share the column. Values that are not finite are left out.
    """
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    cells = [[0] * columns for _ in range(rows)]
    if points and columns > 0 and rows > 0:
        for column, (top, bottom) in _spans(points, columns * 2, rows * 4).items():
            for row in range(top, bottom + 1):
                cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    return ["".join(chr(BLANK + cell) for cell in line) for line in cells]


def _spans(points: list[tuple[float, float]], width: int, height: int) -> dict[int, tuple[int, int]]:
    """By column of dots: the first and the last row of dots that are lit; row 0 is on top."""
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across = (width - 1) / (right - left) if right > left else 0.0
    down = (height - 1) / (high - low) if high > low else 0.0
    spans: dict[int, tuple[int, int]] = {}
    before: tuple[int, int] | None = None
    for x, y in sorted(points):
        column = round((x - left) * across)
        row = round((high - y) * down) if down else (height - 1) // 2
        for at, first, last in _joined(before, (column, row)):
            top, bottom = spans.get(at, (first, last))
            spans[at] = min(top, first), max(bottom, last)
        before = (column, row)
    return spans


def _joined(before: tuple[int, int] | None, here: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(column, first row, last row) of the straight line from `before` to `here`."""
    column, row = here
    if before is None:
        return [(column, row, row)]
    start, from_row = before
    if column == start:
        return [(column, min(row, from_row), max(row, from_row))]
    slope = (row - from_row) / (column - start)
    line = []
    for at in range(start, column + 1):
        near, far = max(at - 0.5, start) - start, min(at + 0.5, column) - start
        ends = from_row + slope * near, from_row + slope * far
        line.append((at, round(min(ends)), round(max(ends))))
    return line
