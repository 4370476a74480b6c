"""Workers as jobs: submitted by submitit, run by its local executor; what Slurm would be handed is read.

A real cluster of Ray is in tests/clients/test_ray.py.
"""

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
from worker.pilots import fleet, ray_actors, slurm_jobs
from worker.pilots.fleet import CannotLaunch, Fleet
from worker.pilots.slurm_jobs import Slurm
from worker.settings import WorkerSettings

#: of whoever starts the launcher, and not for those who may look into the cluster's jobs
SECRETS = {
    "NANOCHAT_DATABASE_URL": "postgresql://planted",
    "NANOCHAT_API_KEY": "planted",
    "NANOCHAT_ENGINE_KEY": "planted",
    "NANOCHAT_BOOTSTRAP_KEY_FILE": "/planted",
}


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


def settings(base: Path, launcher: Any = "slurm", **given: Any) -> WorkerSettings:
    return WorkerSettings(base_dir=base, launcher=launcher, **given)


def test_slurm_is_asked_for_a_node_with_a_worker_on_it(cluster: Path, tmp_path: Path) -> None:
    asked = settings(tmp_path, slurm_gpus=8, slurm_minutes=600, slurm_options="partition=gpu, account=lab")
    workers = Fleet(Slurm(asked), 2)
    workers.look()
    scripts = [file.read_text() for file in sorted(cluster.iterdir())]
    assert len(scripts) == len(workers.jobs) == 2
    wanted = {
        "job-name": "nanochat-worker", "nodes": "1", "ntasks-per-node": "1", "gpus-per-node": "8",
        "time": "600", "partition": "gpu", "account": "lab", "signal": "USR2@120",
    }  # fmt: skip
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", scripts[0], re.MULTILINE))
    assert {key: found.get(key) for key in wanted} == wanted
    assert "submitit.core._submit" in scripts[0] and sys.executable in scripts[0]
    workers.cancel()
    assert len((tmp_path / "cancelled").read_text().split()) == 2


def test_without_slurm_or_with_wrong_options_one_sentence_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pilots.main(settings(tmp_path)) == 2
    assert "srun" in capsys.readouterr().err
    for wrong in ("partition", "a b=c", "partition=gpu x", "--wrap=rm"):
        with pytest.raises(ValueError, match="no name=value"):
            slurm_jobs.options(wrong)
    with pytest.raises(CannotLaunch, match="no name=value"):
        Slurm(settings(tmp_path, slurm_options="partition"))


def test_without_ray_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert pilots.main(settings(tmp_path, "ray")) == 2
    assert capsys.readouterr().err == (
        "worker: NANOCHAT_LAUNCHER=ray needs a package: pip install 'ray>=2.60'\n"
    )


def test_a_worker_on_a_node_of_ray_has_its_gpus_its_address_and_the_launchers_settings(
    tmp_path: Path,
) -> None:
    here = {
        "NANOCHAT_URL": "http://s", "NANOCHAT_REDIS_URL": "", "NCCL_DEBUG": "INFO",
        "NANOCHAT_LAUNCHER": "ray", "NANOCHAT_RAY_GPUS": "2", "NANOCHAT_HOST_ID": "login",
        "NANOCHAT_NODE_ADDRESS": "10.0.0.1",
        "AWS_ACCESS_KEY_ID": "k", "PATH": "/here", "CUDA_VISIBLE_DEVICES": "7", **SECRETS,
    }  # fmt: skip
    given = ray_actors.passed_on(settings(tmp_path, "ray", worker_token="t"), here)
    assert given == {
        "NANOCHAT_URL": "http://s", "NCCL_DEBUG": "INFO", "AWS_ACCESS_KEY_ID": "k",
        "NANOCHAT_BASE_DIR": str(tmp_path), "NANOCHAT_WORKER_TOKEN": "t",
    }  # fmt: skip
    node = {"PATH": "/there", "NANOCHAT_URL": "http://old", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    environ = ray_actors.environment(node, given, "ray-gpu7", "10.0.0.9", ["2", "3"])
    assert environ == {
        **given, "PATH": "/there", "NANOCHAT_LAUNCHER": "local", "NANOCHAT_HOST_ID": "ray-gpu7",
        "NANOCHAT_NODE_ADDRESS": "10.0.0.9", "CUDA_VISIBLE_DEVICES": "2,3",
    }  # fmt: skip
    assert ray_actors.environment(node, given, "h", "a", [])["CUDA_VISIBLE_DEVICES"] == "", "none, not all"


def test_nodes_of_ray_are_hosts_whose_names_a_server_takes() -> None:
    assert ray_actors.host_id("gpu-07", "10.0.0.9") == "ray-gpu-07-10-0-0-9"
    longest = ray_actors.host_id("ip-10-0-0-9.EU.compute", "2001:0db8:0000:0000:0000:8a2e:0370:7334")
    assert WorkerSettings(host_id=f"{longest}-1023").host_id.startswith("ray-ip-10-0-0-9-2001-0db8-")
    assert "0370-7334-1023" in f"{longest}-1023"


def test_a_worker_on_a_node_is_an_ordinary_one_with_the_nodes_name() -> None:
    here = {
        "NANOCHAT_URL": "http://s", "NANOCHAT_LAUNCHER": "slurm", "EMPTY": "", "NANOCHAT_REDIS_URL": "",
        "CUDA_VISIBLE_DEVICES": "", **SECRETS,
    }  # fmt: skip
    assert slurm_jobs.Pilot("/shared", 30.0).environment(here, "slurm-n1") == {
        "NANOCHAT_URL": "http://s", "NANOCHAT_LAUNCHER": "local", "NANOCHAT_BASE_DIR": "/shared", "EMPTY": "",
        "NANOCHAT_HOST_ID": "slurm-n1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    assert re.fullmatch(r"slurm-[a-z0-9-]+", slurm_jobs.wanted_name({}))
    assert slurm_jobs.wanted_name({"NANOCHAT_HOST_ID": "mine"}) == "mine"


def test_jobs_on_one_node_are_hosts_of_their_own_and_the_next_is_the_same_again(tmp_path: Path) -> None:
    with (
        slurm_jobs.own_name(tmp_path, "slurm-n1") as first,
        slurm_jobs.own_name(tmp_path, "slurm-n1") as second,
    ):
        assert (first, second) == ("slurm-n1", "slurm-n1-2")
        with slurm_jobs.own_name(tmp_path, "slurm-n2") as elsewhere:
            assert elsewhere == "slurm-n2"
    with slurm_jobs.own_name(tmp_path, "slurm-n1") as again:
        assert again == first
    longest = slurm_jobs.wanted_name({"NANOCHAT_HOST_ID": "a" * 64})
    assert WorkerSettings(host_id=f"{longest}-1024")


class Job:
    """A job of no cluster."""

    def __init__(self, number: int) -> None:
        self.name, self.over = str(number), False

    def ended(self) -> str:
        return "COMPLETED" if self.over else ""

    def cancel(self) -> None:
        self.over = True


class Nowhere:
    """A scheduler of no cluster."""

    def __init__(self) -> None:
        self.made: list[Job] = []
        self.closed = self.busy = False

    def submit(self) -> Job:
        if self.busy:
            raise RuntimeError("sbatch: error: Socket timed out\non send/recv operation")
        self.made.append(Job(len(self.made)))
        return self.made[-1]

    def look(self) -> None: ...

    def close(self) -> None:
        self.closed = all(job.over for job in self.made)


def test_a_job_that_ends_is_replaced_and_one_that_ends_at_once_not_at_once() -> None:
    scheduler, now = Nowhere(), [1000.0]
    workers = Fleet(scheduler, 2, lambda: now[0])
    workers.look()
    workers.look()
    assert workers.jobs == ["0", "1"]
    now[0] += fleet.SHORT_S
    scheduler.made[0].over = True
    workers.look()
    assert workers.jobs == ["1", "2"]
    scheduler.made[2].over = True
    workers.look()
    assert workers.jobs == ["1"], "something is wrong with it"
    now[0] += fleet.PAUSE_S
    workers.look()
    assert workers.jobs == ["1", "3"]
    workers.cancel()
    assert scheduler.closed, "after all of them were asked to leave"


def test_a_scheduler_that_is_busy_is_asked_again_and_what_works_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler, now = Nowhere(), [1000.0]
    workers = Fleet(scheduler, 2, lambda: now[0])
    workers.look()
    now[0] += fleet.SHORT_S
    scheduler.made[0].over = scheduler.busy = True
    workers.look()
    workers.look()
    assert workers.jobs == ["1"] and caplog.text.count("Socket timed out on send") == 1
    scheduler.busy = False
    now[0] += fleet.PAUSE_S
    workers.look()
    assert workers.jobs == ["1", "2"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_two_jobs_on_one_node_are_two_workers(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")
    base = tmp_path / "node"
    base.mkdir()
    for key, value in worker_environment(service, NANOCHAT_HOST_ID="node-1").items():
        monkeypatch.setenv(key, value)
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=10)
    workers = Fleet(Slurm(settings(base, grace_s=10.0), executor), 2)
    workers.look()

    def alive() -> list[str]:
        return sorted(w["host_id"] for w in service.client.get("/workers").json()["items"] if w["alive"])

    try:
        eventually(lambda: alive() == ["node-1", "node-1-2"], 90)
    finally:
        workers.cancel()
    eventually(lambda: _processes_of(base) == [], 60)


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
    workers = Fleet(Slurm(settings(base, grace_s=10.0), executor), 1)
    workers.look()

    def alive() -> list[str]:
        return [w["host_id"] for w in service.client.get("/workers").json()["items"] if w["alive"]]

    try:
        eventually(lambda: alive() == ["node-1"], 90)
    finally:
        workers.cancel()
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
