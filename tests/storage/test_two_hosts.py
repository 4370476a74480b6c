"""Two hosts that share nothing but the storage: real workers, real torchrun, S3 as moto speaks it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from nanochat.storage import Storage
from nanochat_client import Client
from server.settings import Settings
from tests.services import Service, eventually
from tests.storage.hosts import Hosts
from tests.worker.conftest import StartWorker, prose, start_worker  # noqa: F401 - fixtures
from tests.worker.test_worker import TINY, ended, post

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(500),
]


@pytest.fixture
def settings(settings: Settings, s3_url: str) -> Settings:
    return settings.model_copy(update={"storage_url": s3_url, "lease_s": 10.0})


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
    assert ended(service, tokenizer, 180)["state"] == "succeeded"
    hosts.start("b")
    overrides = {**TINY, "data": str(prose), "num_iterations": 4000, "save_every": 20, "keep_last": 2}
    base = post(service, stage="base", config="debug_cpu", parent=tokenizer, overrides=overrides)
    storage = Storage(service.settings.storage_url, service.settings.base_dir)
    eventually(lambda: len(storage.steps(f"base_checkpoints/{base}")) >= 2, 300, every_s=0.2)
    first = service.client.get(f"/runs/{base}/attempts").json()["items"][0]
    lost = hosts.of(first)
    other = "b" if lost == "a" else "a"
    assert not (hosts.base(other) / "base_checkpoints" / base).exists()
    assert hosts.lose_power(lost) >= 4

    resumed = eventually(lambda: hosts.resumed(base), 150, every_s=0.2)
    assert resumed and resumed[0] >= 20, "it went on from a checkpoint that it had fetched"
    second = service.client.get(f"/runs/{base}/attempts").json()["items"][-1]
    assert hosts.of(second) == other
    service.client.post(f"/runs/{base}/cancel").raise_for_status()
    assert ended(service, base)["state"] == "cancelled"

    stored = storage.steps(f"base_checkpoints/{base}")[-1]  # the lost host may have told of a later one
    listed = service.client.get(f"/runs/{base}/checkpoints").json()["items"]
    last = next(item for item in listed if item["path"] == stored)
    assert not (service.settings.base_dir / last["path"]).exists()
    archive = service.client.get(f"/checkpoints/{last['id']}/download")
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as read:
        assert any(name.endswith("/model.safetensors") for name in read.getnames())
    service.client.delete(f"/runs/{base}").raise_for_status()
    assert storage.steps(f"base_checkpoints/{base}") == []
    assert storage.has(f"tokenizer/{tokenizer}")


def test_an_uploaded_file_reaches_the_host_that_trains_on_it(
    hosts: Hosts, service: Service, tmp_path: Path
) -> None:
    hosts.start("a")
    (tmp_path / "prose.txt").write_text("\n\n".join(f"Document {n} is about {n}. " * 20 for n in range(99)))
    (tmp_path / "more.txt").write_text("One document more. " * 50)
    with Client(service.base_url) as client:
        file, more = (client.files.upload(tmp_path / name) for name in ("prose.txt", "more.txt"))
        for data in (file.path, "files/text"):
            run_id = post(service, stage="tokenizer", overrides={"data": data, "vocab_size": 300})
            final = ended(service, run_id, 120)
            assert final["state"] == "succeeded", final
        assert (hosts.base("a") / file.path).read_bytes() == (tmp_path / "prose.txt").read_bytes()
        client.files.delete(file.id)
        client.files.delete(more.id)
    assert Storage(service.settings.storage_url, service.settings.base_dir).files("files/text") == []
