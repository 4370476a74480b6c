"""`python -m server.bench`: how long starting takes on this machine, the best of a few tries each.

Not covered: training speed, which the trainers log themselves (`train/tok_per_sec`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TRIES = 3


def command_s(*argv: str) -> float:
    """Seconds a command takes. Raises CalledProcessError."""
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def service_s(base_dir: str) -> float:
    """Seconds from starting the whole service to its first answer; stops it again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "NANOCHAT_BASE_DIR": base_dir, "NANOCHAT_PORT": str(port)}
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "server.up"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not _ready(f"http://127.0.0.1:{port}/readyz"):
                if process.poll() is not None:
                    raise RuntimeError("the service did not start: `nanochat doctor` may say why")
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGINT)


def _ready(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), opener.open(url, timeout=1) as answer:
        return bool(answer.status == 200)
    return False


def main() -> int:
    python, nanochat = sys.executable, str(Path(sys.executable).with_name("nanochat"))
    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as base_dir:
        measures: dict[str, Callable[[], float]] = {
            "python -c pass": lambda: command_s(python, "-c", "pass"),
            "import server.app": lambda: command_s(python, "-c", "import server.app"),
            "nanochat --help": lambda: command_s(nanochat, "--help"),
            "service, to its first answer": lambda: service_s(base_dir),
        }
        for name, measure in measures.items():
            print(f"{name:30} {min(measure() for _ in range(TRIES)):6.2f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
