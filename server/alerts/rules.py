"""When something is an alert, and when it is over. Pure: decides over what it is given.

Every rule has a band between raising and clearing, so that a value that plays around a limit is one alert.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from nanochat_client.types import AlertKind as Kind

#: losses that a new one is compared with
WINDOW = 128
#: before so many losses are known nothing is a spike
ENOUGH = 32
#: a deviation smaller than this share of the loss is noise, however calm the losses were
LEAST_SHARE = 0.02
#: of a normal distribution: standard deviation over median absolute deviation
MAD_TO_SIGMA = 1.4826
#: what is usual is worked out anew after so many losses: two medians each time cost more than all the rest
RENEWED = 16
#: so many losses in a row back to normal end a spike
CALM = 8
GIB = 2**30
COOLER_C = 5.0
ROOMIER = 1.1


@dataclass(frozen=True)
class Finding:
    """An alert that should be open now."""

    kind: Kind
    subject: str
    message: str
    value: float | None = None
    threshold: float | None = None
    run_id: str | None = None
    worker_id: str | None = None
    runs: tuple[str, ...] = ()
    """Runs whose events say so."""

    @property
    def key(self) -> tuple[str, str]:
        return (str(self.kind), self.subject)


class LossWatch:
    """The losses of one run, in order. Spikes do not become what later ones are compared with."""

    def __init__(self, sigmas: float) -> None:
        self._sigmas = sigmas
        self._usual: deque[float] = deque(maxlen=WINDOW)
        self._calm = 0
        self._middle = self._sigma = 0.0
        self._since = RENEWED
        self.spike: tuple[float, float] | None = None
        """(loss, limit) of a spike that is not over."""
        self.is_nan = False

    def see(self, losses: Iterable[float | None]) -> None:
        """None: no finite number."""
        for loss in losses:
            self.is_nan = loss is None
            if loss is not None:
                self._number(loss)

    def _number(self, loss: float) -> None:
        if not self._sigmas or len(self._usual) < ENOUGH:
            self._usual.append(loss)
            return
        if self._since >= RENEWED:
            self._renew()
        limit = self._middle + self._sigmas * self._sigma
        if loss > limit:
            self.spike, self._calm = self.spike or (loss, limit), 0
            return
        self._usual.append(loss)
        self._since += 1
        self._calm = self._calm + 1 if loss < self._middle + self._sigmas / 2 * self._sigma else 0
        if self._calm >= CALM:
            self.spike = None

    def _renew(self) -> None:
        """Median and deviation of the usual losses."""
        self._since = 0
        self._middle = statistics.median(self._usual)
        spread = MAD_TO_SIGMA * statistics.median(abs(value - self._middle) for value in self._usual)
        self._sigma = max(spread, LEAST_SHARE * abs(self._middle), 1e-9)


def is_hot(celsius: float, limit: float, *, was: bool) -> bool:
    return celsius >= (limit - COOLER_C if was else limit)


def is_low(free_bytes: int, limit_gib: float, *, was: bool) -> bool:
    return free_bytes < limit_gib * GIB * (ROOMIER if was else 1.0)
