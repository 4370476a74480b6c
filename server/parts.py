"""Child processes of the supervisor: started in sessions of their own, restarted when they die."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEATHS = 5
WITHIN_S = 60.0
_PR_SET_PDEATHSIG = 1


class DeadForGood(Exception):
    """A part died again and again; the text names it."""


def die_with_parent() -> None:
    """Ask the kernel to end this process (SIGTERM) when its parent dies, however that happens. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def kill_marked(key: str, value: str) -> None:
    """SIGKILL every process whose environment says `key=value`, until none is left. Linux only."""
    mark = f"{key}={value}".encode()
    for _ in range(10):
        found = [pid for pid in _pids() if mark in _environ(pid).split(b"\0")]
        if not found:
            return
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if entry.name != str(os.getpid())]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has gone, or is somebody else's
        return b""


@dataclass
class Part:
    """One process to keep alive. `grace_s`: the time it may take to stop; `says`: where it says why."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    grace_s: float
    says: str = "its messages are above"
    process: subprocess.Popen[bytes] | None = None
    _deaths: deque[float] = field(default_factory=deque)
    _start_at: float = 0.0

    def start(self) -> None:
        # a session of its own: Ctrl-C reaches the supervisor alone, which stops the parts in order
        self.process = subprocess.Popen(
            self.argv,
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def look(self) -> str | None:
        """Restart the part when it has died, with growing pauses; says so. Raises DeadForGood."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._start_at:
                self.start()
            return None
        code = self.process.poll()
        if code is None:
            return None
        self.process = None
        self._deaths.append(now)
        while self._deaths and self._deaths[0] < now - WITHIN_S:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            raise DeadForGood(
                f"the {self.name} died {MAX_DEATHS} times within a minute (exit code {code}): {self.says}"
            )
        pause_s = 0.2 * 2 ** (len(self._deaths) - 1)
        self._start_at = now + pause_s
        return f"the {self.name} died (exit code {code}); starting it again"

    def stop(self) -> None:
        """Ask it to leave, wait its grace, then kill it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()

    def kill(self) -> None:
        """End it at once; does not wait, so that a signal handler may call it."""
        if self.process is not None:
            self.process.kill()
