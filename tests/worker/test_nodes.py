"""Runs over two workers with a base directory each: real torchrun over both (gloo), one of them lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import Settings
from tests.services import Service, eventually
from tests.storage.hosts import Hosts
from tests.worker.conftest import StartWorker
from tests.worker.test_worker import TINY, ended, post, run

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(500),
]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"storage_url": f"file://{tmp_path / 'shared'}", "lease_s": 10.0})


@pytest.fixture
def hosts(service: Service, start_worker: StartWorker, tmp_path: Path) -> Hosts:
    """Two nodes. All of 127.0.0.0/8 is this machine, so each has an address of its own."""
    hosts = Hosts(service, start_worker, tmp_path)
    hosts.start("a", NANOCHAT_NODE_ADDRESS="127.0.0.1")
    hosts.start("b", NANOCHAT_NODE_ADDRESS="127.0.0.2")
    return hosts


def test_two_nodes_train_one_run_and_the_loss_of_one_costs_the_steps_since_its_last_checkpoint(
    service: Service, hosts: Hosts, prose: Path
) -> None:
    tokenizer = post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300})
    overrides = {**TINY, "data": str(prose), "processes": 2, "num_iterations": 5000, "save_every": 20}
    base = post(
        service, stage="base", config="debug_cpu", parent=tokenizer, gpus=0, nodes=2, min_nodes=1,
        overrides={**overrides, "keep_last": 2},
    )  # fmt: skip
    shared = hosts.root / "shared" / "base_checkpoints" / base

    def stored() -> bool:
        assert run(service, base)["state"] not in ("failed", "cancelled"), run(service, base)["message"]
        return bool(list(shared.glob("step_*/manifest.json"))) and run(service, base)["step"] > 20

    eventually(stored, 300, every_s=0.2)
    assert "2 rank" in log_of(service, base)
    attempt = service.client.get(f"/runs/{base}/attempts").json()["items"][0]
    assert (attempt["nodes"], hosts.of(attempt)) == (2, "a"), "the lowest address is node 0"
    assert len(list(hosts.base("b").glob(f"runs/{base}/attempt_1/node_1/config.json"))) == 1
    assert not list(hosts.base("b").glob("base_checkpoints/*/step_*")), "node 0 alone writes checkpoints"
    with (hosts.base("b") / f"runs/{base}/attempt_1/node_1/run.log").open("a") as printed:
        printed.write("a library has something to say\n")
    eventually(lambda: "\n[node 1] a library has something to say\n" in log_of(service, base))

    assert hosts.lose_power("b") >= 4

    resumed = eventually(lambda: hosts.resumed(base), 150, every_s=0.2)
    assert resumed and resumed[0] >= 20
    attempts = service.client.get(f"/runs/{base}/attempts").json()["items"]
    assert attempts[0]["reason"] == "lost_worker" and attempts[-1]["nodes"] == 1
    service.client.post(f"/runs/{base}/cancel").raise_for_status()
    assert ended(service, base)["state"] == "cancelled"


def log_of(service: Service, run_id: str) -> str:
    return service.client.get(f"/runs/{run_id}/logs", params={"format": "text"}).text
