"""`python -m server.up`: everything on this machine, under one supervisor.

Queue, server and worker are its children. Ctrl-C or SIGTERM stops all of it (trainers save first); a part
that dies is started again; one that dies for good ends everything with one sentence. Should the
supervisor itself be killed, the kernel ends its children. Not covered: two services that share a
PostgreSQL database or a Redis.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import IO, TextIO

from pydantic import ValidationError

from nanochat import paths
from server import embedded
from server.__main__ import CannotStart, bind, check_base_dir, check_exposure
from server.parts import DeadForGood, Part, kill_marked
from server.settings import Settings

POLL_S = 0.05
READY_S = 120.0
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
        self.url = f"http://{_from_here(settings.host)}:{settings.port}"
        self.parts: list[Part] = []
        self.signals = 0
        self._mark = secrets.token_hex(8)

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._watch()
            return 0
        except (CannotStart, DeadForGood) as error:
            _say(f"up: {error}", sys.stderr)
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
            "NANOCHAT_UP": self._mark,
            "PYTHONUNBUFFERED": "1",
        }
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the second start is quick because of what it writes
        environ["NANOCHAT_REDIS_URL"] = self.settings.redis_url or self._start_queue(environ)
        self._add(Part("server", [sys.executable, "-m", "server"], environ, grace_s=15))
        self._add(Part("worker", [sys.executable, "-m", "worker"], environ, grace_s=WORKER_GRACE_S))

    def _start_queue(self, environ: dict[str, str]) -> str:
        """Start the embedded Valkey and return its URL; the others wait for it. Raises CannotStart."""
        directory = self.settings.base_dir / "queue"
        try:
            path = embedded.socket_path(directory)
        except OSError as error:
            raise CannotStart(f"cannot make {error.filename} ({error.strerror}): remove it") from None
        says = f"{directory / 'valkey.log'} says why; removing {directory} loses nothing"
        self._add(Part("queue", embedded.command(directory, path), environ, grace_s=10, says=says))
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
                    _say(f"up: {said}", sys.stderr)
            if not announced and _ready(self.url):
                announced = True
                _say(GREETING.format(url=self.url))
            if not announced and time.monotonic() - started > READY_S:
                raise CannotStart(
                    f"the server did not get ready within {READY_S:.0f} s: its messages are above"
                )
            time.sleep(POLL_S if not announced else 0.2)

    def _stop(self) -> None:
        if any(part.process for part in self.parts):
            _say("up: stopping (a trainer saves its checkpoint first; Ctrl-C again does not wait)")
        for part in reversed(self.parts):
            part.stop()
        kill_marked("NANOCHAT_UP", self._mark)  # what a killed part left behind


def _say(text: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:  # a terminal that was closed must not keep us from stopping what we started
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def _from_here(host: str) -> str:
    """How this machine itself reaches a server that listens on `host`."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]" if ":" in here else here


def _ready(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine, never a proxy
    with suppress(OSError, ValueError), opener.open(f"{url}/readyz", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


def lock_base_dir(settings: Settings) -> IO[str]:
    """Held as long as the file is open: one service per base directory. Raises CannotStart."""
    file = (settings.base_dir / "up.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise CannotStart(
            f"a service runs for {settings.base_dir} already (process {file.read().strip() or 'unknown'}): "
            "stop that one, or choose another NANOCHAT_BASE_DIR"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def main() -> int:
    try:
        os.environ["NANOCHAT_BASE_DIR"] = str(paths.base_dir())  # `~` and relative paths resolved, for all
        settings = Settings()
        check_exposure(settings)
        check_base_dir(settings)
        lock = lock_base_dir(settings)
        bind(settings).close()
    except ValidationError as error:
        first = error.errors()[0]
        name = "NANOCHAT_" + "_".join(str(part) for part in first["loc"]).upper()
        print(f"up: {name}: {first['msg']}, got {first['input']!r}", file=sys.stderr)
        return 2
    except CannotStart as error:
        print(f"up: {error}", file=sys.stderr)
        return 2
    with lock:
        return Supervisor(settings).run()


if __name__ == "__main__":
    raise SystemExit(main())
