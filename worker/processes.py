"""Finding and ending the processes of an attempt by the marker in their environment.

torchrun's ranks live in sessions of their own, so neither process groups nor parentage find them all
after a crash; the environment does. Not covered: a process that replaces its environment block.
"""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress
from pathlib import Path

import psutil

MARKER = "NANOCHAT_MARKER"
BASE_DIR = "NANOCHAT_BASE_DIR"
HOST_ID = "NANOCHAT_HOST_ID"
RUN_ID = "NANOCHAT_RUN_ID"
_PR_SET_PDEATHSIG = 1


def marked(
    base_dir: Path, attempt_id: str | None = None, *, host: str | None = None, run_id: str | None = None
) -> list[psutil.Process]:
    """Trainer processes of this base directory: all, or those of one attempt, run or host id."""
    wanted = {BASE_DIR: str(base_dir), MARKER: attempt_id, HOST_ID: host, RUN_ID: run_id}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environ = process.environ()
            if MARKER in environ and all(v is None or environ.get(k) == v for k, v in wanted.items()):
                found.append(process)
    return found


def kill(
    base_dir: Path,
    attempt_id: str | None = None,
    *,
    host: str | None = None,
    run_id: str | None = None,
    wait_s: float = 5.0,
) -> int:
    """SIGKILL them all, again and again until none is left (a rank may fork meanwhile). Returns how many."""
    killed = 0
    for _ in range(5):
        victims = marked(base_dir, attempt_id, host=host, run_id=run_id)
        if not victims:
            break
        killed += len(victims)
        for process in victims:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(victims, timeout=wait_s)
    return killed


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask the kernel to send this process `number` when its parent dies. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))
