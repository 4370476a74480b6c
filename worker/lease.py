"""The lease of an attempt: renewed while the server answers, and what its answers ask for."""

from __future__ import annotations

import time
from collections.abc import Callable

from nanochat_client.types import Beat, Claim
from worker.api import Api, Away, Refused
from worker.guard import Guard


class Lease:
    """Renewed in time by whoever calls `renew` often. `wanted`: what the last answer asked for."""

    def __init__(
        self, api: Api, claim: Claim, guard: Guard, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._claim, self._guard, self._clock = api, claim, guard, clock
        self._every_s = min(2.0, max(0.2, claim.lease_s / 30))  # at least every 2 s, so that stops are quick
        self._next = 0.0
        self._movable = False
        self.started_at: float | None = None
        """When the trainer was started, on `clock`."""
        self.wanted = claim.desired
        self.refused = False
        """Somebody else has the attempt now."""
        self.broken = False
        """Another node of the attempt is gone."""

    @property
    def seconds(self) -> float:
        """How long the trainer has worked."""
        return 0.0 if self.started_at is None else self._clock() - self.started_at

    @property
    def over_time(self) -> bool:
        left = self._claim.seconds_left
        return left is not None and self.seconds >= left

    def renew(self) -> None:
        """Ask the server, if it is time to."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every_s
        body = Beat(fence=self._claim.fence, movable=self._movable, seconds=self.seconds)
        try:
            answer = self._api.beat(self._claim.attempt_id, body)
        except Away:
            return  # the trainer goes on; files grow and are shipped later
        except Refused:
            self.refused = True
            return
        self.wanted, self._movable = answer.desired, answer.movable
        self.broken = answer.broken
        self._guard.renewed(now, answer.movable)
