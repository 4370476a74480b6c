"""`python -m server.up`: everything on this machine, under one supervisor.

Queue, server and worker are its children. Ctrl-C or SIGTERM stops all of it (trainers save first); a part
that dies is started again; one that dies for good ends everything with one sentence. Should the
supervisor itself be killed, the kernel ends its children.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from server.__main__ import CannotStart, check_base_dir, check_exposure, listen
from server.parts import DeadForGood, Part
from server.settings import Settings

POLL_S = 0.05
READY_S = 120.0
QUEUE_S = 15.0
MAX_SOCKET_PATH = 100
#: the worker's own grace for its trainer is 30 s, and it reports afterwards
WORKER_GRACE_S = 45.0
GREETING = """
  dashboard  {url}/ui/
  API        {url}/docs
  Ctrl-C stops everything
"""


class Supervisor:
    """Starts the parts in order, watches them, stops them in reverse."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = f"http://{settings.host if settings.host != '::1' else '[::1]'}:{settings.port}"
        self.parts: list[Part] = []
        self.signals = 0
        self._short: tempfile.TemporaryDirectory[str] | None = None

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._watch()
            return 0
        except (CannotStart, DeadForGood) as error:
            print(f"up: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            self._stop()

    def _on_signal(self, number: int, frame: object) -> None:
        self.signals += 1
        if self.signals > 1:  # somebody is in a hurry
            for part in reversed(self.parts):
                part.kill()

    def _start(self) -> None:
        environ = {
            **os.environ,
            "NANOCHAT_BASE_DIR": str(self.settings.base_dir),
            "NANOCHAT_HOST": self.settings.host,
            "NANOCHAT_PORT": str(self.settings.port),
            "NANOCHAT_URL": self.url,
            "PYTHONUNBUFFERED": "1",
        }
        environ["NANOCHAT_REDIS_URL"] = self.settings.redis_url or self._start_queue(environ)
        self._add(Part("server", [sys.executable, "-m", "server"], environ, grace_s=15))
        self._add(Part("worker", [sys.executable, "-m", "worker"], environ, grace_s=WORKER_GRACE_S))

    def _start_queue(self, environ: dict[str, str]) -> str:
        """Start the embedded Valkey; returns its URL once it answers."""
        directory = self.settings.base_dir / "queue"
        path = directory / "valkey.sock"
        if len(str(path)) > MAX_SOCKET_PATH:  # the kernel's limit is 108
            self._short = tempfile.TemporaryDirectory(prefix="nanochat-")
            path = Path(self._short.name) / "valkey.sock"
        argv = [sys.executable, "-m", "server.embedded", str(directory), str(path)]
        queue = self._add(Part("queue", argv, environ, grace_s=10))
        deadline = time.monotonic() + QUEUE_S
        while not self.signals and not _answers(path):
            if queue.process is None or queue.process.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(
                    f"the embedded Valkey does not start: see {directory / 'valkey.log'}, "
                    "or set NANOCHAT_REDIS_URL"
                )
            time.sleep(POLL_S)
        return f"unix://{path}"

    def _add(self, part: Part) -> Part:
        self.parts.append(part)
        part.start()
        return part

    def _watch(self) -> None:
        announced, started = False, time.monotonic()
        while not self.signals:
            for part in self.parts:
                if said := part.look():
                    print(f"up: {said}", file=sys.stderr, flush=True)
            if not announced and _ready(self.url):
                announced = True
                print(GREETING.format(url=self.url), flush=True)
            if not announced and time.monotonic() - started > READY_S:
                raise CannotStart(
                    f"the server did not get ready within {READY_S:.0f} s: its messages are above"
                )
            time.sleep(POLL_S if not announced else 0.2)

    def _stop(self) -> None:
        if any(part.process for part in self.parts):
            print(
                "up: stopping (a trainer saves its checkpoint first; Ctrl-C again does not wait)", flush=True
            )
        for part in reversed(self.parts):
            part.stop()


def _ready(url: str) -> bool:
    with suppress(OSError, ValueError), urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


def _answers(path: Path) -> bool:
    """Whether a Valkey behind the socket answers a ping."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.5)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def main() -> int:
    try:
        settings = Settings()
        check_exposure(settings)
        check_base_dir(settings)
        listen(settings).close()
    except ValidationError as error:
        first = error.errors()[0]
        name = "NANOCHAT_" + "_".join(str(part) for part in first["loc"]).upper()
        print(f"up: {name}: {first['msg']}, got {first['input']!r}", file=sys.stderr)
        return 2
    except CannotStart as error:
        print(f"up: {error}", file=sys.stderr)
        return 2
    return Supervisor(settings).run()


if __name__ == "__main__":
    raise SystemExit(main())
