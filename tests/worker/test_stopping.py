"""Whatever part of a worker goes, however it goes: its trainer saves and leaves, and the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.services import Service, command_line, eventually
from tests.worker.conftest import StartWorker
from tests.worker.test_worker import TINY, post, run
from worker.processes import marked

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(170),
]


def endless(service: Service, prose: Path) -> str:
    """A base run that does not end by itself and saves only when it is stopped."""
    tokenizer = post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300})
    overrides = {**TINY, "data": str(prose), "num_iterations": 1_000_000, "compile": "off"}
    return post(service, stage="base", config="debug_cpu", parent=tokenizer, overrides=overrides)


def trains(service: Service, run_id: str, attempt: int, step: int = 3) -> int:
    """The step once attempt number `attempt` has got beyond `step`."""

    def look() -> int:
        found = run(service, run_id)
        return found["step"] if found["attempt"] == attempt and (found["step"] or 0) > step else 0

    return eventually(look, 90, every_s=0.1)


def slots(worker_pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(worker_pid).children() if "worker.slot" in command_line(p)]


def steps_without_hole(service: Service, run_id: str) -> bool:
    query = {"keys": "train/loss", "max_points": 100_000}
    x = service.client.get(f"/runs/{run_id}/metrics", params=query).json()["series"][0]["x"]
    return bool(x == list(range(1, len(x) + 1)))


def test_a_worker_that_is_asked_to_stop_saves_first_and_its_run_waits_for_the_next(
    service: Service, start_worker: StartWorker, prose: Path
) -> None:
    worker = start_worker()
    base = endless(service, prose)
    step = trains(service, base, attempt=1)
    for number in (signal.SIGINT, signal.SIGTERM):  # an impatient person; the second one changes nothing
        worker.send_signal(number)
    assert worker.wait(60) == 0
    assert marked(service.settings.base_dir) == []
    found = run(service, base)
    assert (found["state"], found["reason"]) == ("queued", None)
    assert service.client.get(f"/runs/{base}/checkpoints").json()["items"][-1]["step"] >= step
    start_worker()
    trains(service, base, attempt=2, step=step)
    assert steps_without_hole(service, base)


def test_kill_9_of_the_worker_alone_ends_its_slots_and_trainers_too(
    service: Service, start_worker: StartWorker, prose: Path
) -> None:
    worker = start_worker()
    base = endless(service, prose)
    trains(service, base, attempt=1)
    family = slots(worker.pid)
    family += family[0].children(recursive=True)
    assert len(family) >= 5  # slot, work-horse, torchrun, two ranks
    worker.kill()
    eventually(lambda: not marked(service.settings.base_dir), 60)
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert (service.settings.base_dir / "base_checkpoints" / base).is_dir()  # it saved before it left


def test_a_second_worker_waits_until_the_first_has_left(service: Service, start_worker: StartWorker) -> None:
    first, second = start_worker(), start_worker()
    files = psutil.Process(second.pid).open_files
    eventually(lambda: any(Path(file.path).name == "worker.lock" for file in files()), 30)
    assert slots(second.pid) == []
    first.send_signal(signal.SIGTERM)
    eventually(lambda: slots(second.pid), 60)
    assert first.wait(10) == 0  # it let go of the lock as the last thing it did


def test_a_slot_whose_worker_was_gone_before_it_looked_leaves(service: Service) -> None:
    argv = [sys.executable, "-m", "worker.slot", "w0", "host:h0", "1"]  # 1: surely not who started it
    environ = os.environ | {"NANOCHAT_REDIS_URL": service.settings.redis_url}
    assert subprocess.run(argv, env=environ, timeout=60).returncode == 1
