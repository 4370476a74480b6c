"""`python -m worker.pilots.tied PID`: becomes a worker that does not outlive PID, who has started it.

When that dies, however it dies, the kernel sends the worker SIGTERM: trainers save and leave. The request is
made here and not in a `preexec_fn`, which is unsafe in a process with threads, as Ray's are. Linux only.
"""

from __future__ import annotations

import os
import signal
import sys

from worker.processes import die_with_parent


def main(argv: list[str]) -> int:
    die_with_parent(signal.SIGTERM)
    if os.getppid() != int(argv[0]):  # it has died before we asked
        return 1
    return os.execv(sys.executable, [sys.executable, "-m", "worker"])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
