"""A lease counts only the time in which the server could have heard a beat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.attempts.leases import LeaseWatch
from server.models import Attempt


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempt(beat: int) -> Attempt:
    return Attempt(id="a1", beat_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=beat))


def test_silence_longer_than_the_lease_expires_it() -> None:
    clock = Clock()
    watch = LeaseWatch(10, clock)
    for _ in range(11):
        assert watch.expired([attempt(0)]) == []
        clock.now += 1
    assert watch.expired([attempt(0)]) == ["a1"]


def test_a_beat_renews_the_lease() -> None:
    clock = Clock()
    watch = LeaseWatch(10, clock)
    for second in range(100):
        assert watch.expired([attempt(second // 9)]) == []
        clock.now += 1


def test_a_server_that_was_down_starts_counting_anew_however_old_the_last_beat_is() -> None:
    clock = Clock()
    watch = LeaseWatch(10, clock)  # a fresh process; the beat in the database may be days old
    assert watch.expired([attempt(-86400)]) == []
    clock.now += 4
    assert watch.expired([attempt(-86400)]) == []


def test_time_in_which_the_loop_hung_does_not_count() -> None:
    clock = Clock()
    watch = LeaseWatch(10, clock)
    watch.expired([attempt(0)])
    clock.now += 1000  # a suspended laptop: counts as one look
    assert watch.expired([attempt(0)]) == []
    for _ in range(9):
        clock.now += 1
        assert watch.expired([attempt(0)]) == []
    clock.now += 1
    assert watch.expired([attempt(0)]) == ["a1"]
