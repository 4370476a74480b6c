"""A server that goes away and comes back finds every run where it is, and misses nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.services import eventually, free_port
from tests.worker.test_worker import TINY
from worker.processes import marked

pytestmark = pytest.mark.timeout(170)


class Processes:
    """Server and worker as processes, on one base directory and one queue."""

    def __init__(self, base: Path, redis_url: str) -> None:
        self.base, self.port = base, free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self.environ = {
            **os.environ,
            "NANOCHAT_BASE_DIR": str(base),
            "NANOCHAT_PORT": str(self.port),
            "NANOCHAT_URL": f"http://127.0.0.1:{self.port}",
            "NANOCHAT_REDIS_URL": redis_url,
            "NANOCHAT_LEASE_S": "3",
        }

    def start(self, module: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module], env=self.environ, cwd=Path(__file__).parents[2]
        )

    def get(self, path: str) -> Any:
        """The answer's JSON; an empty object while the server is away."""
        try:
            answer = self.http.get(path)
        except httpx.HTTPError:
            return {}
        return answer.json() if answer.is_success else {}


@pytest.fixture
def processes(tmp_path: Path, redis_url: str) -> Iterator[Processes]:
    made = Processes(tmp_path / "base", redis_url)
    yield made
    made.http.close()


def test_a_run_does_not_notice_that_the_server_was_killed(processes: Processes, prose: Path) -> None:
    server, worker = processes.start("server"), processes.start("worker")
    try:
        eventually(lambda: processes.get("/workers").get("items"), 60)
        overrides = {"data": str(prose), "vocab_size": 300}
        body: dict[str, Any] = {"stage": "tokenizer", "overrides": overrides}
        tokenizer = processes.http.post("/runs", json=body).json()["id"]
        body = {"stage": "base", "config": "debug_cpu", "parent": tokenizer}
        body["overrides"] = {**TINY, "data": str(prose), "num_iterations": 1_000_000}
        base = processes.http.post("/runs", json=body).json()["id"]
        eventually(lambda: (processes.get(f"/runs/{base}").get("step") or 0) >= 3, 90)

        server.kill()
        server.wait()
        ranks = {process.pid for process in marked(processes.base)}
        events = processes.base / "runs" / base / "attempt_1" / "events.jsonl"
        lines = len(events.read_text().splitlines())
        eventually(lambda: len(events.read_text().splitlines()) > lines + 40, 60)  # longer than a lease
        server = processes.start("server")

        eventually(lambda: (processes.get(f"/runs/{base}").get("step") or 0) > lines + 40, 60)
        found = processes.get(f"/runs/{base}")
        assert (found["state"], found["attempt"]) == ("running", 1)
        assert {process.pid for process in marked(processes.base)} == ranks
        assert processes.http.post(f"/runs/{base}/cancel").status_code == 202
        eventually(lambda: processes.get(f"/runs/{base}")["state"] == "cancelled", 60)
        log = processes.http.get(f"/runs/{base}/logs", params={"format": "text"}).content
        assert log == events.with_name("run.log").read_bytes()
        x = processes.get(f"/runs/{base}/metrics?keys=train/loss&max_points=100000")["series"][0]["x"]
        assert x == list(range(1, len(x) + 1)) and len(x) > 40
    finally:
        for process in (worker, server):
            process.send_signal(signal.SIGTERM)
        assert psutil.wait_procs([psutil.Process(p.pid) for p in (worker, server)], timeout=60)[1] == []
        assert marked(processes.base) == []
