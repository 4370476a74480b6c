"""So many workers, kept going through whatever starts them: the part that schedulers share.

One that ends without having been asked to is asked for again; one that has ended soon, after a pause.
Not covered: starting more when runs wait and fewer when none do.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)
LOOK_S = 2.0
#: a job that ends sooner than this has something wrong with it: wait before the next
SHORT_S, PAUSE_S = 60.0, 30.0


class CannotLaunch(Exception):
    """There is no such scheduler here; one sentence that says what to do."""


class Job(Protocol):
    """A worker that was asked for; it may still wait for its node."""

    @property
    def name(self) -> str: ...

    def ended(self) -> str:
        """Why it is over; empty while it waits or works."""
        ...

    def cancel(self) -> None:
        """Ask it to leave; its trainers save first. Does not wait."""
        ...


class Scheduler(Protocol):
    """What starts workers on nodes."""

    def submit(self) -> Job:
        """Ask for one more worker. Does not wait for its node. Whatever it raises is tried again later."""
        ...

    def look(self) -> None:
        """Called every LOOK_S: say in the log what keeps jobs waiting."""
        ...

    def close(self) -> None:
        """Every job was cancelled: wait for those that end with this process, give back what is held."""
        ...


class Fleet:
    """Keeps `count` jobs going until it is asked to stop."""

    def __init__(self, scheduler: Scheduler, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler, self._count, self._clock = scheduler, count, clock
        self._jobs: list[tuple[Job, float]] = []
        self._not_before = 0.0
        self.stopping = False

    @property
    def jobs(self) -> list[str]:
        return [job.name for job, _ in self._jobs]

    def look(self) -> None:
        """Forget jobs that have ended, submit what is missing."""
        now = self._clock()
        for job, since in list(self._jobs):
            if why := job.ended():
                self._jobs.remove((job, since))
                log.warning("job %s has ended (%s)", job.name, why)
                if now - since < SHORT_S:
                    self._not_before = now + PAUSE_S
        while len(self._jobs) < self._count and now >= self._not_before:
            try:
                job = self._scheduler.submit()
            except Exception as error:  # busy, or a limit on jobs: those that work must not be left alone
                log.warning("no worker could be asked for, again in %.0f s: %s", PAUSE_S, _line(error))
                self._not_before = now + PAUSE_S
                break
            self._jobs.append((job, now))
            log.info("job %s: a worker was asked for", job.name)
        self._scheduler.look()

    def run(self) -> int:
        """Until SIGTERM or Ctrl-C; the workers leave, too."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self.stopping:
            self.look()
            deadline = time.monotonic() + LOOK_S
            while not self.stopping and time.monotonic() < deadline:
                time.sleep(0.1)
        self.cancel()
        return 0

    def cancel(self) -> None:
        """Every job is asked to leave; its trainers save first."""
        for job, _ in self._jobs:
            job.cancel()
        self._scheduler.close()

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
