"""When a loss is a spike and when it is over; limits with a band."""

from __future__ import annotations

import math
import random

from server.alerts.rules import GIB, LossWatch, is_hot, is_low


def training(steps: int, seed: int = 1) -> list[float | None]:
    """A loss as it falls, with noise."""
    noise = random.Random(seed)
    return [3 + 8 * math.exp(-step / 200) + noise.gauss(0, 0.05) for step in range(steps)]


def test_a_training_that_goes_well_is_no_alert() -> None:
    for seed in range(5):
        watch = LossWatch(8)
        for loss in training(800, seed):
            watch.see([loss])
            assert watch.spike is None and not watch.is_nan


def test_a_spike_is_one_until_the_loss_is_back() -> None:
    watch = LossWatch(8)
    watch.see(training(500))
    watch.see([9.0])
    assert watch.spike is not None and watch.spike[0] == 9.0
    first = watch.spike
    watch.see([8.5] * 300)  # what is wrong for long does not become what is usual
    assert watch.spike == first
    watch.see([3.6] * 7)
    assert watch.spike == first
    watch.see([3.6] * 2)
    assert watch.spike is None


def test_a_calm_loss_may_move_a_little_and_one_about_zero_a_lot() -> None:
    watch = LossWatch(8)
    watch.see([2.0] * 100 + [2.2])
    assert watch.spike is None
    noise = random.Random(3)
    reward = LossWatch(8)
    reward.see([noise.gauss(0, 0.01) for _ in range(500)])
    assert reward.spike is None
    reward.see([1.0])
    assert reward.spike is not None


def test_no_number_is_seen_until_there_is_one_and_switched_off_is_off() -> None:
    watch = LossWatch(0)
    watch.see([1.0] * 100 + [1e9])
    assert watch.spike is None
    watch.see([None])
    assert watch.is_nan
    watch.see([1.0])
    assert not watch.is_nan


def test_limits_have_a_band() -> None:
    assert is_hot(90, 90, was=False) and not is_hot(89, 90, was=False) and is_hot(86, 90, was=True)
    assert not is_hot(84, 90, was=True)
    assert (
        is_low(4 * GIB, 5, was=False) and not is_low(5 * GIB, 5, was=False) and is_low(5 * GIB, 5, was=True)
    )
    assert not is_low(6 * GIB, 5, was=True)
