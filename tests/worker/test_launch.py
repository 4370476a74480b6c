"""What a trainer is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanochat_client.types import Claim
from worker import launch


def test_a_trainer_gets_no_secret_of_the_service() -> None:
    claim = Claim.model_construct(run_id="r1", attempt_id="a1", processes=2, gpus=[0, 1])
    secrets = {
        "NANOCHAT_WORKER_TOKEN": "t",
        "NANOCHAT_DATABASE_URL": "u",
        "NANOCHAT_REDIS_URL": "r",
        "AWS_SECRET_ACCESS_KEY": "s",
        "PATH": "/bin",
        "HF_HOME": "/hf",
        "WANDB_MODE": "offline",  # a trainer with use_dummy_wandb off needs these
    }
    environ = launch.environment(claim, Path("/base"), Path("/base/runs/r1/attempt_1"), secrets)
    assert not {"t", "u", "r", "s"} & set(environ.values())
    assert (environ["PATH"], environ["HF_HOME"], environ["CUDA_VISIBLE_DEVICES"]) == ("/bin", "/hf", "0,1")
    assert environ["WANDB_MODE"] == "offline"
    assert environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert (environ["NANOCHAT_MARKER"], environ["NANOCHAT_RUN_ID"]) == ("a1", "r1")


def test_nodes_talk_through_the_interface_of_their_address_unless_somebody_has_said_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "interface", lambda of: {"10.1.0.2": "eth0"}.get(of, ""))
    claim = Claim.model_construct(run_id="r1", attempt_id="a1", processes=2, gpus=[])

    def given(address: str | None, **environ: str) -> tuple[str | None, str | None]:
        meeting = launch.Meeting("10.1.0.2:29500", address) if address else None
        found = launch.environment(claim, Path("/base"), Path("/base/a"), environ, meeting=meeting)
        return found.get("GLOO_SOCKET_IFNAME"), found.get("NCCL_SOCKET_IFNAME")

    assert given("10.1.0.2") == ("eth0", "=eth0")
    assert given("10.1.0.2", NCCL_SOCKET_IFNAME="ib0") == ("eth0", "ib0")
    assert given("127.0.0.1") == given(None) == (None, None)


def test_distributed_stages_run_under_torchrun_and_others_plainly() -> None:
    claim = Claim.model_construct(stage="base", processes=2)
    argv = launch.argv(claim, Path("/c.json"))
    assert argv[1:3] == ["-m", "torch.distributed.run"]
    assert argv[argv.index("--local-addr") + 1] == "127.0.0.1", "whatever the host's name leads to"
    assert argv[argv.index("--nproc-per-node") + 1] == "2"
    assert argv[-4:] == ["-m", "scripts.base_train", "--config", "/c.json"]
    plain = launch.argv(Claim.model_construct(stage="tokenizer", processes=1), Path("/c.json"))
    assert plain[1:] == ["-m", "scripts.tok_train", "--config", "/c.json"]
