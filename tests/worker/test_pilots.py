"""Workers as jobs: submitted by submitit, run by its local executor; what Slurm would be handed is read."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import Service, eventually
from tests.worker.conftest import worker_environment
from worker import pilots
from worker.settings import WorkerSettings


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that keeps what it was handed, where submitit looks for Slurm. There is no Slurm here."""
    bin_dir, kept = tmp_path / "bin", tmp_path / "submitted"
    bin_dir.mkdir()
    kept.mkdir()
    for name, text in {
        "sbatch": f'cp "$1" {kept}/$(ls {kept} | wc -l).sh; echo Submitted batch job 4$(ls {kept} | wc -l)',
        "srun": "exit 0",
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
    }.items():
        file = bin_dir / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    return kept


def settings(base: Path, **given: Any) -> WorkerSettings:
    return WorkerSettings(base_dir=base, launcher="slurm", **given)


def test_slurm_is_asked_for_a_node_with_a_worker_on_it(cluster: Path, tmp_path: Path) -> None:
    asked = settings(tmp_path, slurm_gpus=8, slurm_minutes=600, slurm_options="partition=gpu, account=lab")
    fleet = pilots.Pilots(pilots.slurm(asked), 2, lambda: pilots.Pilot(str(tmp_path), 30.0))
    fleet.look()
    scripts = [file.read_text() for file in sorted(cluster.iterdir())]
    assert len(scripts) == len(fleet.jobs) == 2
    wanted = {
        "job-name": "nanochat-worker", "nodes": "1", "ntasks-per-node": "1", "gpus-per-node": "8",
        "time": "600", "partition": "gpu", "account": "lab", "signal": "USR2@120",
    }  # fmt: skip
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", scripts[0], re.MULTILINE))
    assert {key: found.get(key) for key in wanted} == wanted
    assert "submitit.core._submit" in scripts[0] and sys.executable in scripts[0]
    fleet.cancel()
    assert len((tmp_path / "cancelled").read_text().split()) == 2


def test_without_slurm_or_with_wrong_options_one_sentence_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pilots.main(settings(tmp_path)) == 2
    assert "srun" in capsys.readouterr().err
    for wrong in ("partition", "a b=c", "partition=gpu x", "--wrap=rm"):
        with pytest.raises(ValueError, match="no name=value"):
            pilots.options(wrong)


def test_a_worker_on_a_node_is_an_ordinary_one_with_the_nodes_name() -> None:
    pilot = pilots.Pilot("/shared", 30.0)
    environ = pilot.environment({"NANOCHAT_URL": "http://s", "NANOCHAT_LAUNCHER": "slurm", "EMPTY": ""})
    assert environ["NANOCHAT_LAUNCHER"] == "local" and environ["NANOCHAT_BASE_DIR"] == "/shared"
    assert re.fullmatch(r"slurm-[a-z0-9-]+", environ["NANOCHAT_HOST_ID"])
    assert pilot.environment({"NANOCHAT_HOST_ID": "mine"})["NANOCHAT_HOST_ID"] == "mine"


class Job:
    """A job of no cluster."""

    def __init__(self, number: int) -> None:
        self.job_id, self.state, self.over = str(number), "COMPLETED", False

    def done(self) -> bool:
        return self.over

    def cancel(self, check: bool = True) -> None:
        self.over = True


class Executor:
    def __init__(self) -> None:
        self.made: list[Job] = []

    def submit(self, pilot: pilots.Pilot) -> Job:
        self.made.append(Job(len(self.made)))
        return self.made[-1]


def test_a_job_that_ends_is_replaced_and_one_that_ends_at_once_not_at_once(tmp_path: Path) -> None:
    executor, now = Executor(), [1000.0]
    fleet = pilots.Pilots(executor, 2, lambda: pilots.Pilot(str(tmp_path), 1.0), lambda: now[0])
    fleet.look()
    fleet.look()
    assert fleet.jobs == ["0", "1"]
    now[0] += pilots.SHORT_S
    executor.made[0].over = True
    fleet.look()
    assert fleet.jobs == ["1", "2"]
    executor.made[2].over = True
    fleet.look()
    assert fleet.jobs == ["1"], "something is wrong with it"
    now[0] += pilots.PAUSE_S
    fleet.look()
    assert fleet.jobs == ["1", "3"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_submitted_worker_registers_and_leaves_when_its_job_is_cancelled(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")
    base = tmp_path / "node"
    base.mkdir()
    for key, value in worker_environment(service, NANOCHAT_HOST_ID="node-1").items():
        monkeypatch.setenv(key, value)
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=10)
    fleet = pilots.Pilots(executor, 1, lambda: pilots.Pilot(str(base), 10.0))
    fleet.look()

    def alive() -> list[str]:
        return [w["host_id"] for w in service.client.get("/workers").json()["items"] if w["alive"]]

    try:
        eventually(lambda: alive() == ["node-1"], 90)
    finally:
        fleet.cancel()
    eventually(lambda: alive() == [], 60)
    assert _processes_of(base) == []


def _processes_of(base: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split()
    found = []
    for pid in listed:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"NANOCHAT_BASE_DIR={base}\0".encode() in environ:
            found.append(pid)
    return found
