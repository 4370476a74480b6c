"""Which attempts have been silent for longer than their lease, counted only while we could hear.

Only time during which this process ran its loop counts: a server that was down, a laptop that slept or a
loop that hung extends every lease by that time. Clock readings never cross the wire or a restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from server.models import Attempt, Member

#: a gap between two looks longer than this is time in which we were deaf; it counts as one look
LONGEST_LOOK_S = 5.0
LOOK_S = 1.0


@dataclass
class _Heard:
    beat_at: datetime | None
    since: float


class LeaseWatch:
    """Remembers when each live attempt was last heard of, on this process's monotonic clock."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._longest_s = min(LONGEST_LOOK_S, lease_s / 2)
        self._heard: dict[str, _Heard] = {}
        self._looked = clock()
        self._listened_s = 0.0
        """How long we have listened, all in all: the clock of the leases."""

    def expired(self, live: Iterable[Attempt | Member]) -> list[str]:
        """Ids of the attempts in `live` (all there are) whose lease has run out. Call it every second."""
        now = self._clock()
        gap = now - self._looked
        self._listened_s += gap if gap <= self._longest_s else min(LOOK_S, self._longest_s)
        self._looked = now
        known, self._heard = self._heard, {}
        for attempt in live:
            before = known.get(attempt.id)
            same = before is not None and before.beat_at == attempt.beat_at
            self._heard[attempt.id] = before if before and same else _Heard(attempt.beat_at, self._listened_s)
        return [key for key, heard in self._heard.items() if self._listened_s - heard.since > self._lease_s]
