"""Wilson's interval against known values and its limits."""

from __future__ import annotations

import pytest

from nanochat.evals.intervals import wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_known_intervals(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_without_problems_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_problems_make_a_narrower_interval() -> None:
    widths = [high - low for low, high in (wilson(n // 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
