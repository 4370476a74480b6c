"""Two hosts that share nothing but the storage: real workers, real torchrun, S3 as moto speaks it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from nanochat.storage import Storage
from server.settings import Settings
from tests.services import Service, eventually
from tests.worker.conftest import StartWorker, prose, start_worker  # noqa: F401 - fixtures
from tests.worker.test_worker import TINY, ended, post, run

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(170),
]


@pytest.fixture
def settings(settings: Settings, s3_url: str) -> Settings:
    return settings.model_copy(update={"storage_url": s3_url, "lease_s": 8.0})


class Hosts:
    """Workers of hosts with a base directory each; the server has one of its own."""

    def __init__(self, service: Service, start: StartWorker, root: Path) -> None:
        self.service, self.root = service, root
        self._start = start

    def base(self, name: str) -> Path:
        return self.root / name

    def start(self, name: str) -> None:
        self.base(name).mkdir(exist_ok=True)
        self._start(
            NANOCHAT_BASE_DIR=str(self.base(name)),
            NANOCHAT_HOST_ID=name,
            NANOCHAT_STORAGE_URL=self.service.settings.storage_url,
        )
        eventually(lambda: name in self.alive(), 30)

    def alive(self) -> list[str]:
        workers = self.service.client.get("/workers").json()["items"]
        return [worker["host_id"] for worker in workers if worker["alive"]]

    def of(self, attempt: dict[str, Any]) -> str:
        workers = self.service.client.get("/workers").json()["items"]
        return next(worker["host_id"] for worker in workers if worker["id"] == attempt["worker"])

    def lose_power(self, name: str) -> int:
        """SIGKILL to every process of the host, again until there is none."""
        killed = 0
        for _ in range(5):
            found = []
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    if process.environ().get("NANOCHAT_BASE_DIR") == str(self.base(name)):
                        process.kill()
                        found.append(process)
            killed += len(found)
            psutil.wait_procs(found, timeout=5)
            if not found:
                break
        return killed


@pytest.fixture
def hosts(
    service: Service,
    start_worker: StartWorker,  # noqa: F811
    tmp_path: Path,
) -> Hosts:
    return Hosts(service, start_worker, tmp_path)


def test_a_host_that_loses_power_is_replaced_by_one_that_fetches_the_last_checkpoint(
    hosts: Hosts,
    service: Service,
    prose: Path,  # noqa: F811
) -> None:
    hosts.start("a")
    tokenizer = post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300})
    assert ended(service, tokenizer)["state"] == "succeeded"
    hosts.start("b")
    overrides = {**TINY, "data": str(prose), "num_iterations": 4000, "save_every": 50, "keep_last": 2}
    base = post(service, stage="base", config="debug_cpu", parent=tokenizer, overrides=overrides)
    storage = Storage(service.settings.storage_url, service.settings.base_dir)
    eventually(lambda: len(storage.steps(f"base_checkpoints/{base}")) >= 2, 90, every_s=0.2)
    first = service.client.get(f"/runs/{base}/attempts").json()["items"][0]
    lost = hosts.of(first)
    other = "b" if lost == "a" else "a"
    assert not (hosts.base(other) / "base_checkpoints" / base).exists()
    assert hosts.lose_power(lost) >= 4

    def goes_on() -> bool:
        found = run(service, base)
        return found["attempt"] == 2 and found["state"] == "running" and found["step"] > 50

    eventually(goes_on, 90, every_s=0.2)
    second = service.client.get(f"/runs/{base}/attempts").json()["items"][-1]
    assert hosts.of(second) == other
    phases = service.client.get(f"/runs/{base}/events", params={"kind": "phase"}).json()["items"]
    resumed = [e["step"] for e in phases if e["attempt"] == 2 and e["data"]["phase"] == "resume"]
    assert resumed and resumed[0] >= 50, "it went on from a checkpoint that it had fetched"
    service.client.post(f"/runs/{base}/cancel").raise_for_status()
    assert ended(service, base)["state"] == "cancelled"

    last = service.client.get(f"/runs/{base}/checkpoints").json()["items"][-1]
    assert not (service.settings.base_dir / last["path"]).exists()
    archive = service.client.get(f"/checkpoints/{last['id']}/download")
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as read:
        assert any(name.endswith("/model.safetensors") for name in read.getnames())
    service.client.delete(f"/runs/{base}").raise_for_status()
    assert storage.steps(f"base_checkpoints/{base}") == []
    assert storage.has(f"tokenizer/{tokenizer}")
