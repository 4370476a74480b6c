"""NANOCHAT_LAUNCHER=ray on a real cluster of two nodes: workers appear, train, are lost, and leave.

Ray is 250 MB, so `make test` leaves this out and `make test-clients` runs it. The GPUs do not exist; what
is trained is trained on CPUs.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.settings import Settings
from tests.clients.conftest import Install
from tests.clients.ray_cluster import HEAD, Cluster
from tests.services import Service, command_line, eventually
from tests.worker.conftest import prose, worker_environment  # noqa: F401 - a fixture
from tests.worker.test_worker import TINY, ended, post, run
from worker.pilots.ray_actors import host_id
from worker.processes import BASE_DIR

pytestmark = [
    pytest.mark.clients,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(600),
]
VERSION = "2.60.0"
OTHER, THIRD = "127.0.0.3", "127.0.0.4"
Launch = Callable[..., "Launcher"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_s": 10.0})


@pytest.fixture(scope="module")
def site(install: Install) -> Path:
    """Ray, and of what it needs that which is not ours."""
    return install(f"ray-{VERSION}", f"ray=={VERSION}", "msgpack==1.2.4")


@pytest.fixture(scope="module")
def cluster(site: Path) -> Iterator[Cluster]:
    running = Cluster(site)
    try:
        for address in (HEAD, OTHER):
            running.start(address)
        yield running
    finally:
        running.close()


class Launcher:
    """`NANOCHAT_LAUNCHER=ray python -m worker`."""

    def __init__(self, service: Service, site: Path, log: Path, **settings: object) -> None:
        self.service, self._log = service, log
        given = {f"NANOCHAT_{key.upper()}": str(value) for key, value in settings.items()}
        environ = worker_environment(service, NANOCHAT_LAUNCHER="ray", **given)
        environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(site)])
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker"], env=environ, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self._log.read_text()

    def workers(self) -> dict[str, dict[str, Any]]:
        """Those that are alive, by their host id."""
        listed = self.service.client.get("/workers").json()["items"]
        return {worker["host_id"]: worker for worker in listed if worker["alive"]}

    def have(self, *addresses: str) -> None:
        """Wait until there are workers on these nodes, and no others."""
        wanted = {host_id(platform.node(), address) for address in addresses}

        def look() -> bool:
            assert self.process.poll() is None, self.text
            return set(self.workers()) == wanted

        eventually(look, 120, every_s=0.2)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def launch(service: Service, cluster: Cluster, site: Path, tmp_path: Path) -> Iterator[Launch]:
    started: list[Launcher] = []

    def start(**settings: object) -> Launcher:
        log = tmp_path / f"launcher{len(started)}.log"
        asked = {"ray_address": cluster.address, "ray_workers": 2, "ray_gpus": 1, "fake_gpus": 2, **settings}
        started.append(Launcher(service, site, log, **asked))
        return started[-1]

    yield start
    for launcher in started:
        if launcher.process.poll() is None:
            launcher.stop()
        print(launcher.text)
    eventually(lambda: ours(service) == [], 60, every_s=0.2)
    eventually(cluster.is_free, 60, every_s=0.5)


def ours(service: Service) -> list[list[str]]:
    """Commands of workers and trainers of this service."""
    found = []
    for process in psutil.process_iter():
        try:
            environ = process.environ()
        except (psutil.Error, OSError):
            continue
        if environ.get(BASE_DIR) == str(service.settings.base_dir):
            found.append(command_line(process))
    return found


def start_base(service: Service, text: Path, save_every: int, **fields: Any) -> str:
    """A run of two ranks that goes on for long, once it has come past step 20."""
    tokenizer = post(service, stage="tokenizer", overrides={"data": str(text), "vocab_size": 300})
    overrides = {**TINY, "data": str(text), "processes": 2, "num_iterations": 5000, "keep_last": 2}
    base = post(
        service, stage="base", config="debug_cpu", parent=tokenizer, gpus=0,
        overrides={**overrides, "save_every": save_every}, **fields,
    )  # fmt: skip

    def trains() -> bool:
        found = run(service, base)
        assert found["state"] not in ("failed", "cancelled"), found["message"]
        return (found["step"] or 0) > 20

    eventually(trains, 300, every_s=0.2)
    return base


def saved(service: Service, run_id: str) -> int:
    """The newest step on disk; 0: none."""
    found = (service.settings.base_dir / "base_checkpoints" / run_id).glob("step_*/manifest.json")
    return max((int(manifest.parent.name.removeprefix("step_")) for manifest in found), default=0)


def attempts(service: Service, run_id: str) -> list[dict[str, Any]]:
    return list(service.client.get(f"/runs/{run_id}/attempts").json()["items"])


def resumed(service: Service, run_id: str) -> list[int]:
    """Steps at which later attempts went on."""
    answer = service.client.get(f"/runs/{run_id}/events", params={"kind": "phase"}).json()
    return [e["step"] for e in answer["items"] if e["attempt"] > 1 and e["data"]["phase"] == "resume"]


def test_workers_on_two_nodes_train_one_run_and_the_loss_of_a_node_costs_the_steps_since_its_checkpoint(
    service: Service,
    cluster: Cluster,
    launch: Launch,
    prose: Path,  # noqa: F811
) -> None:
    launcher = launch()
    launcher.have(HEAD, OTHER)
    for worker in launcher.workers().values():
        assert len(worker["gpus"]) == 1, "one of the node's two, as Ray was asked for"

    base = start_base(service, prose, save_every=20, nodes=2, min_nodes=1)
    eventually(lambda: saved(service, base), 60)
    assert attempts(service, base)[0]["nodes"] == 2
    assert "2 rank" in service.client.get(f"/runs/{base}/logs", params={"format": "text"}).text

    assert cluster.lose(OTHER) >= 6, "raylet, actor, worker, slot, work-horse, torchrun, rank"
    steps = eventually(lambda: resumed(service, base), 150, every_s=0.2)
    assert steps and steps[0] >= 20
    assert attempts(service, base)[0]["reason"] == "lost_worker"
    assert attempts(service, base)[-1]["nodes"] == 1
    eventually(lambda: "has ended" in launcher.text and "no room" in launcher.text, 90, every_s=0.5)

    cluster.start(THIRD)  # another one in its place
    launcher.have(HEAD, THIRD)
    assert "Ray has room" in launcher.text

    service.client.post(f"/runs/{base}/cancel").raise_for_status()
    assert ended(service, base)["state"] == "cancelled"
    assert launcher.stop() == 0
    assert ours(service) == [], "it waited for its workers"
    eventually(cluster.is_free, 30, every_s=0.5)


def test_a_launcher_that_is_asked_to_stop_lets_trainers_save_and_one_that_is_killed_leaves_nothing(
    service: Service,
    launch: Launch,
    prose: Path,  # noqa: F811
) -> None:
    launcher = launch(ray_workers=1)
    base = start_base(service, prose, save_every=100_000)
    assert launcher.stop(signal.SIGINT) == 0
    assert ours(service) == []
    stopped = saved(service, base)
    assert stopped > 20 and run(service, base)["state"] == "queued"

    again = launch(ray_workers=1)
    eventually(lambda: (run(service, base)["step"] or 0) > stopped + 10, 120, every_s=0.2)
    assert resumed(service, base) == [stopped]
    again.stop(signal.SIGKILL)
    eventually(lambda: ours(service) == [], 60, every_s=0.2)
    assert saved(service, base) > stopped, "its trainers saved, too"
    service.client.post(f"/runs/{base}/cancel").raise_for_status()


def test_a_worker_that_dies_is_replaced(service: Service, launch: Launch) -> None:
    launcher = launch(ray_workers=1, ray_gpus=2, ray_place="pack")
    eventually(lambda: launcher.workers(), 90, every_s=0.2)
    (worker,) = launcher.workers().values()
    assert len(worker["gpus"]) == 2 and worker["host_id"].endswith("-0")
    (pid,) = [p.pid for p in psutil.process_iter() if is_worker(p, service)]
    psutil.Process(pid).kill()

    def another() -> bool:
        return [p.pid for p in psutil.process_iter() if is_worker(p, service)] not in ([], [pid])

    eventually(another, 90, every_s=0.2)
    assert "the worker left with status -9" in launcher.text


def is_worker(process: psutil.Process, service: Service) -> bool:
    try:
        environ = process.environ()
    except (psutil.Error, OSError):
        return False
    ours = environ.get(BASE_DIR) == str(service.settings.base_dir)
    return (
        ours
        and environ.get("NANOCHAT_LAUNCHER") == "local"
        and command_line(process)[-2:] == ["-m", "worker"]
    )


def test_more_workers_than_there_is_room_for_wait(service: Service, launch: Launch) -> None:
    launcher = launch(ray_workers=3)
    eventually(lambda: "Ray has no room for 3 worker(s) with 1 CPU and 1 GPU each" in launcher.text, 60)
    assert launcher.workers() == {}
    assert launcher.stop() == 0


def test_without_a_cluster_one_sentence_says_so(service: Service, site: Path, tmp_path: Path) -> None:
    launcher = Launcher(service, site, tmp_path / "log", ray_address="127.0.0.9:1")
    assert launcher.process.wait(120) == 2
    assert "NANOCHAT_LAUNCHER=ray: no cluster at 127.0.0.9:1" in launcher.text
    assert "Traceback" not in launcher.text
