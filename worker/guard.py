"""A process beside the trainer that ends it when its worker cannot.

Forked by the work-horse before the trainer starts. It acts in two cases:

- the lease: a run that another host may take over is asked to save and leave when nobody has renewed its
  lease for 0.8 of it, and killed at 0.9, whether the work-horse is well, frozen or cut off;
- the work-horse is dead: the trainer has been asked to leave by the kernel, and is killed after its grace.

The locks that the work-horse holds (worker/locks.py) are inherited: they stay taken until the guard has
seen the last process of the attempt end. Not covered: freezing the guard and the trainer not (SIGSTOP to
every process but the ranks).
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress

STOP_AT, KILL_AT = 0.8, 0.9
#: stop_at, kill_at (monotonic seconds; infinity: never), trainer's pid, whether it was stopped
_STATE = struct.Struct("dddd")
NEVER = float("inf")


class Guard:
    """Started once per attempt, before the trainer."""

    def __init__(
        self, lease_s: float, grace_s: float, end: Callable[[], object], left: Callable[[], object]
    ) -> None:
        """`end` kills the attempt's processes; `left` is truthy while one of them lives."""
        self._lease_s, self._grace_s, self._end, self._left = lease_s, grace_s, end, left
        self._poll_s = min(0.5, lease_s / 60)
        self._shared = mmap.mmap(-1, _STATE.size)
        self._put(0, NEVER)
        self._put(1, NEVER)
        self._parent = os.getpid()
        self.pid = 0

    def start(self) -> None:
        """Fork. Call it before any thread is started."""
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setsid()  # nobody ends it together with the work-horse
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            self._watch()
        finally:
            os._exit(0)

    def trainer(self, pid: int) -> None:
        """Whom to ask to leave."""
        self._put(2, pid)

    def renewed(self, asked_at: float, movable: bool) -> None:
        """The lease was renewed by a request sent at `asked_at` (monotonic): count from there."""
        self._put(0, asked_at + STOP_AT * self._lease_s if movable else NEVER)
        self._put(1, asked_at + KILL_AT * self._lease_s if movable else NEVER)

    @property
    def fired(self) -> bool:
        """Whether it has asked the trainer to leave."""
        return self._get(3) > 0

    def stop(self) -> None:
        """No process of the attempt is left: the guard may go."""
        if self.pid:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.pid = 0

    def _watch(self) -> None:
        orphaned_at = NEVER
        while True:
            now = time.monotonic()
            if orphaned_at == NEVER and os.getppid() != self._parent:
                orphaned_at = now
            if now >= self._get(0) and not self.fired:
                self._put(3, 1)
                if pid := int(self._get(2)):
                    with suppress(OSError):
                        os.kill(pid, signal.SIGTERM)
            if now >= min(self._get(1), orphaned_at + self._grace_s):
                self._end()
            if orphaned_at != NEVER and not self._left():
                return
            time.sleep(self._poll_s)

    def _put(self, index: int, value: float) -> None:
        struct.pack_into("d", self._shared, 8 * index, value)

    def _get(self, index: int) -> float:
        return float(struct.unpack_from("d", self._shared, 8 * index)[0])
