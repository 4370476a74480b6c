"""`python -m worker`: register this host, keep one slot process per GPU (or one for the CPU) alive.

At start every trainer that an earlier worker of this host left behind is ended, and what its attempt left
on disk is shipped. So registering is proof: nothing of earlier attempts lives on this host. So there is one
worker per host and base directory: a second one waits until the first has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from nanochat.storage import Storage, StorageError
from nanochat_client.types import WorkerRegister, WorkerRegistered
from worker import locks, notes, processes
from worker.api import Api, Away, Refused, insist
from worker.host import Host, address, host_id
from worker.salvage import LOST_WITH_ITS_WORKER, salvage
from worker.settings import WorkerSettings

log = logging.getLogger("worker")
TOKEN_WAIT_S = 60.0


class Supervisor:
    """Registration, reports of load, and the slots. `run` returns when asked to stop."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.host_id = host_id(settings)
        self.place = notes.place(settings.base_dir, self.host_id)
        self.host = Host(settings.base_dir, settings.fake_gpus)
        self.gpus = self.host.gpus()
        self.count = max(1, len(self.gpus))
        self.stopping = False
        self.slots: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self.place.mkdir(parents=True, exist_ok=True)
        if (lock := self._lock(self.place / "worker.lock")) is None:
            return 0
        with lock:
            self._sweep()
            locks.note_gpus(self.settings.base_dir, self.host_id, self.gpus)
            return self._work()

    def _work(self) -> int:
        api = Api(self.settings.url, self._token())
        try:
            self._salvage(api)
            registered = insist(lambda: self._register(api, []), lambda: self.stopping, longest_s=0.5)
        except Away:
            return 0
        log.info(
            "registered as %s with %d slot(s), %d GPU(s)", registered.worker_id, self.count, len(self.gpus)
        )
        while not self.stopping:
            self._keep_slots(registered)
            before, registered = registered, self._report(api, registered)
            if before.worker_id != registered.worker_id:  # the server forgot us: slots must know the new name
                self._stop_slots()
            self._wait(self.settings.stats_s)
        self._stop_slots()
        api.close()
        return 0

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True

    def _lock(self, path: Path) -> IO[bytes] | None:
        """The lock of this base directory, once nobody else holds it; None when asked to stop before."""
        file, said = path.open("ab"), False
        while not self.stopping:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except OSError:
                if not said:
                    log.warning("another worker serves %s: waiting until it leaves", self.settings.base_dir)
                said = True
            time.sleep(0.1)
        file.close()
        return None

    def _token(self) -> str:
        deadline = time.monotonic() + TOKEN_WAIT_S
        while not self.stopping:
            try:
                return self.settings.token()
            except FileNotFoundError:
                if time.monotonic() > deadline:
                    raise SystemExit(
                        "worker: no worker token: set NANOCHAT_WORKER_TOKEN, or start the server "
                        "with the same NANOCHAT_BASE_DIR first"
                    ) from None
            time.sleep(0.1)
        raise SystemExit(0)

    def _sweep(self) -> None:
        if count := processes.kill(self.settings.base_dir, host=self.host_id):
            log.warning("ended %d process(es) that an earlier worker left behind", count)

    def _salvage(self, api: Api) -> None:
        for note in notes.read_all(self.settings.base_dir, self.host_id):
            done = salvage(
                self.settings, api, self.host_id, note, LOST_WITH_ITS_WORKER, lambda: self.stopping
            )
            if not done:
                raise Away("asked to stop")

    def _register(self, api: Api, live: list[str]) -> WorkerRegistered:
        body = WorkerRegister(
            host_id=self.host_id,
            host=platform.node() or "localhost",
            name=platform.node() or "localhost",
            slots=self.count,
            gpus=self.gpus,
            address=address(self.settings),
            live_attempts=live,
        )
        return api.register(body)

    def _report(self, api: Api, registered: WorkerRegistered) -> WorkerRegistered:
        try:
            api.report(registered.worker_id, self.host.stats())
        except Away:
            pass  # it comes back; runs go on meanwhile
        except Refused as refused:
            if refused.status != 404:
                raise
            live = [note.attempt_id for note in notes.read_all(self.settings.base_dir, self.host_id)]
            with contextlib.suppress(Away):
                return self._register(api, live)
        return registered

    def _keep_slots(self, registered: WorkerRegistered) -> None:
        self.slots = [slot for slot in self.slots if slot.poll() is None]
        while len(self.slots) < self.count:
            command = [sys.executable, "-m", "worker.slot", registered.worker_id, registered.queue]
            command.append(str(os.getpid()))
            # a session of its own: Ctrl-C reaches this process alone, which asks the slots once
            slot = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
            self.slots.append(slot)

    def _stop_slots(self) -> None:
        """Slots ask their work-horses, those stop their trainers: all within the grace period."""
        for slot in self.slots:
            slot.terminate()
        deadline = time.monotonic() + self.settings.grace_s + 10
        for slot in self.slots:
            with contextlib.suppress(subprocess.TimeoutExpired):
                slot.wait(max(0.1, deadline - time.monotonic()))
            if slot.poll() is None:
                slot.kill()
                slot.wait()
        self.slots = []
        processes.kill(self.settings.base_dir, host=self.host_id)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < deadline:
            time.sleep(0.05)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(message)s", datefmt="%H:%M:%S")
    for talkative in ("httpx", "aiobotocore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    settings = WorkerSettings()
    if not settings.redis_url:
        print(
            "worker: NANOCHAT_REDIS_URL is not set; `nanochat up` starts a queue of its own", file=sys.stderr
        )
        return 2
    settings.base_dir.mkdir(parents=True, exist_ok=True)
    if settings.storage_url:
        try:
            Storage(settings.storage_url, settings.base_dir).check()
        except StorageError as error:
            print(f"worker: NANOCHAT_STORAGE_URL: {error}", file=sys.stderr)
            return 2
    if settings.launcher != "local":
        from worker import pilots

        return pilots.main(settings)
    return Supervisor(settings).run()


if __name__ == "__main__":
    raise SystemExit(main())
