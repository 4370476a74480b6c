"""Several hosts on one machine: workers with a base directory and a host id each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.services import Service, eventually
from tests.worker.conftest import StartWorker


class Hosts:
    """Workers of hosts with a base directory each; the server has one of its own."""

    def __init__(self, service: Service, start: StartWorker, root: Path) -> None:
        self.service, self.root = service, root
        self._start = start

    def base(self, name: str) -> Path:
        return self.root / name

    def start(self, name: str, **extra: str) -> None:
        self.base(name).mkdir(exist_ok=True)
        self._start(
            NANOCHAT_BASE_DIR=str(self.base(name)),
            NANOCHAT_HOST_ID=name,
            NANOCHAT_STORAGE_URL=self.service.settings.storage_url,
            **extra,
        )
        eventually(lambda: name in self.alive(), 90)

    def alive(self) -> list[str]:
        workers = self.service.client.get("/workers").json()["items"]
        return [worker["host_id"] for worker in workers if worker["alive"]]

    def of(self, attempt: dict[str, Any]) -> str:
        workers = self.service.client.get("/workers").json()["items"]
        return next(worker["host_id"] for worker in workers if worker["id"] == attempt["worker"])

    def lose_power(self, name: str) -> int:
        """SIGKILL to every process of the host, again until there is none; how many there were.

        All are looked up before the first is killed: a supervisor's death takes its children along.
        """
        killed = 0
        while found := list(self._processes(name)):
            killed += len(found)
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=5)
        return killed

    def _processes(self, name: str) -> Iterator[psutil.Process]:
        """Of the host, by their environment; a zombie has none."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("NANOCHAT_BASE_DIR") == str(self.base(name)):
                    yield process

    def resumed(self, run_id: str) -> list[int]:
        """Steps at which the run's later attempts went on."""
        answer = self.service.client.get(f"/runs/{run_id}/events", params={"kind": "phase"}).json()
        return [
            item["step"]
            for item in answer["items"]
            if item["attempt"] > 1 and item["data"]["phase"] == "resume"
        ]
