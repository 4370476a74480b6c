"""The guard beside a trainer: what it ends, when, and what it lets live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.services import eventually
from worker.guard import Guard
from worker.locks import Busy, Locks
from worker.processes import kill, marked

SLEEPER = """
import signal
print("ready", flush=True)
while True:
    signal.pause()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SLEEPER
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A process that carries the marker of attempt a1."""
    started = []

    def run(source: str = SLEEPER) -> subprocess.Popen[bytes]:
        mine = {"NANOCHAT_BASE_DIR": str(tmp_path), "NANOCHAT_MARKER": "a1", "NANOCHAT_RUN_ID": "r1"}
        environ = {**os.environ, **mine}
        process = subprocess.Popen([sys.executable, "-c", source], env=environ, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def guard(base: Path, lease_s: float, grace_s: float = 0.5) -> Guard:
    made = Guard(lease_s, grace_s, lambda: kill(base, "a1"), lambda: marked(base, "a1"))
    made.start()
    return made


def test_a_movable_trainer_is_asked_to_leave_and_then_killed_when_nobody_renews(
    start: Start, tmp_path: Path
) -> None:
    beside = guard(tmp_path, lease_s=2.0)
    polite, stubborn = start(), start(STUBBORN)
    beside.trainer(polite.pid)
    renewed = time.monotonic()
    beside.renewed(renewed, movable=True)
    assert polite.wait(10) == -signal.SIGTERM
    assert time.monotonic() - renewed >= 1.6
    assert beside.fired
    assert stubborn.wait(10) == -signal.SIGKILL
    beside.stop()


def test_a_trainer_that_cannot_move_lives_however_long_nobody_renews(start: Start, tmp_path: Path) -> None:
    beside = guard(tmp_path, lease_s=0.1)
    trainer = start()
    beside.trainer(trainer.pid)
    beside.renewed(time.monotonic() - 100, movable=False)
    with pytest.raises(subprocess.TimeoutExpired):
        trainer.wait(1.0)
    assert not beside.fired
    beside.stop()


def test_a_guard_without_its_work_horse_ends_the_trainer_and_itself(start: Start, tmp_path: Path) -> None:
    trainer = start(STUBBORN)
    horse = os.fork()
    if horse == 0:
        beside = guard(tmp_path, lease_s=60.0, grace_s=0.2)
        (tmp_path / "guard").write_text(str(beside.pid))
        signal.pause()
        os._exit(0)
    eventually(lambda: (tmp_path / "guard").exists() and (tmp_path / "guard").read_text())
    process = psutil.Process(int((tmp_path / "guard").read_text()))
    os.kill(horse, signal.SIGKILL)
    os.waitpid(horse, 0)
    assert trainer.wait(20) == -signal.SIGKILL
    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 20)


def test_a_newer_claim_takes_the_run_from_a_frozen_work_horse(start: Start, tmp_path: Path) -> None:
    trainer = start()
    horse = os.fork()
    if horse == 0:
        Locks(tmp_path, "here").run("r1", lambda: None)
        (tmp_path / "held").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    eventually((tmp_path / "held").exists)
    mine = Locks(tmp_path, "here")
    mine.run("r1", lambda: kill(tmp_path, run_id="r1"))
    assert os.waitpid(horse, 0)[1] == signal.SIGKILL
    assert marked(tmp_path) == [] and trainer.wait(10) is not None
    mine.release()


def test_a_gpu_that_somebody_else_holds_is_waited_for_and_then_named(tmp_path: Path) -> None:
    host = f"host-{os.getpid()}"
    one, other = Locks(tmp_path, host), Locks(tmp_path, host)
    one.gpus([0, 1], lambda: True)
    with pytest.raises(Busy, match=rf"GPU 1 is held by process {os.getpid()}"):
        other.gpus([1], lambda: True, wait_s=0.2)
    one.release()
    other.gpus([1], lambda: True, wait_s=0.2)
    other.release()
