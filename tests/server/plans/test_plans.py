"""POST /plans: what a run would need, what is wrong with it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.fake_worker import FakeWorker, post_run
from tests.services import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def post_plan(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/plans", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_plan_names_everything_a_run_would_need(service: Service) -> None:
    plan = post_plan(service, stage="base", config="stable_26gb", gpu="RTX 5090", target_vram_gb=26)
    assert (plan["preset"], plan["device"], plan["gpus"], plan["ranks"]) == ("stable_26gb", "RTX 5090", 2, 2)
    assert plan["config"]["depth"] == 14 and plan["argv"][0] == "torchrun"
    assert plan["parameters"] == 252_313_600 and plan["vocab_size"] == 65536
    assert plan["accumulation"] == 1 and plan["tokens"] == plan["steps"] * 110592
    memory = dict(plan["memory"])
    assert memory.pop("cache") == 0, "nothing is generated"
    assert set(memory) == {"weights", "gradients", "optimizer", "activations", "loss", "buffers", "total"}
    assert memory.pop("total") == sum(memory.values()) and all(memory.values())
    assert plan["budget_bytes"] == 26 << 30 and plan["fits"] == (plan["memory"]["total"] <= 26 << 30)
    assert plan["fit"]["device_batch_size"] and plan["fit"]["total_batch_size"] == 110592
    assert min(plan["seconds"], plan["energy_kwh"], plan["disk_bytes"], plan["flops_per_token"]) > 0
    assert plan["problems"] == [] and plan["notes"]
    assert service.client.get("/runs").json()["items"] == []


def test_a_config_with_problems_is_planned_and_told_what_would_be_valid(service: Service) -> None:
    overrides = {"depth": 13, "total_batch_size": 100_000}
    plan = post_plan(service, stage="base", overrides=overrides)
    assert [(p["pointer"], p["nearest"]) for p in plan["problems"]] == [
        ("/overrides/depth", 14),
        ("/overrides/total_batch_size", 131072),
    ]
    assert plan["parameters"] and plan["memory"]


@pytest.mark.parametrize(
    ("body", "pointer", "nearest"),
    [
        ({"stage": "base", "overrides": {"depht": 3}}, "/overrides/depht", "depth"),
        ({"stage": "base", "overrides": {"depth": 0}}, "/overrides/depth", 1),
        ({"stage": "base", "overrides": {"device": "cpu"}, "gpus": 1}, "/gpus", 0),
        ({"stage": "base", "config": "demo_sft"}, "/config", None),
        ({"stage": "sft", "parent": "r9999999999"}, "/parent", None),
        ({"stage": "sft", "checkpoint": "step:5"}, "/checkpoint", "last"),
        ({"stage": "sft", "checkpoint": "first"}, "/checkpoint", "last"),
    ],
)
def test_a_config_that_cannot_be_read_has_problems_only(
    service: Service, body: dict[str, Any], pointer: str, nearest: Any
) -> None:
    plan = post_plan(service, **body)
    assert (plan["problems"][0]["pointer"], plan["problems"][0]["nearest"]) == (pointer, nearest)
    assert plan["memory"] is None and plan["config"] is None


@pytest.mark.parametrize(
    ("body", "code", "nearest"),
    [
        ({"stage": "bass"}, "unknown_stage", "base"),
        ({"stage": "base", "config": "stable_26"}, "unknown_preset", "stable_26gb"),
        ({"stage": "base", "gpu": "RTX 5900"}, "unknown_gpu", "RTX 5090"),
    ],
)
def test_what_does_not_exist_is_refused(
    service: Service, body: dict[str, Any], code: str, nearest: str
) -> None:
    answer = service.client.post("/plans", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == code and answer.json()["errors"][0]["nearest"] == nearest


def test_a_plan_is_for_the_gpus_of_the_best_worker(service: Service) -> None:
    assert post_plan(service, stage="base", config="debug_cpu")["device"] == "CPU"
    FakeWorker(service, gpus=1, host_id="host-small")
    FakeWorker(service, gpus=2, host_id="host-big")
    plan = post_plan(service, stage="base", config="stable_26gb")
    assert (plan["device"], plan["budget_bytes"]) == ("Fake 5090", 32 << 30)


def test_a_run_that_would_not_fit_is_said_so_and_accepted(service: Service) -> None:
    FakeWorker(service, gpus=1)
    overrides = {"depth": 26, "device_batch_size": 64}
    assert post_plan(service, stage="base", overrides=overrides)["fits"] is False
    assert post_run(service, stage="base", overrides=overrides)["gpus"] == 1


def test_auto_is_planned_for_the_workers_there_are(service: Service) -> None:
    on_cpu = service.client.get("/configs/auto").json()
    assert (on_cpu["gpus"], on_cpu["stages"], on_cpu["problems"]) == (0, ["base"], [])
    assert post_run(service, stage="base", config="auto")["config"]["depth"] == 4

    FakeWorker(service, gpus=2)
    on_gpus = service.client.get("/configs/auto").json()
    assert on_gpus["gpus"] == 2 and on_gpus["values"]["depth"] > 4 and on_gpus["resolved"]
    run = post_run(service, stage="base", config="auto")
    assert run["gpus"] == 2 and run["config"]["depth"] == on_gpus["values"]["depth"]
    one = post_plan(service, stage="base", config="auto", gpus=1)
    assert one["gpus"] == 1 and one["fits"] and one["problems"] == []
    here = post_run(service, stage="base", config="auto", overrides={"device": "cpu"})
    assert here["gpus"] == 0 and here["config"]["depth"] == 4
    assert "auto" in service.client.get("/stages/base").json()["presets"]
