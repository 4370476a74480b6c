"""Plans of runs that go on from a checkpoint: the database says how large its model is."""

from __future__ import annotations

from nanochat.planner import Shape
from tests.server.fake_worker import FakeWorker, post_run
from tests.server.plans.test_plans import post_plan
from tests.services import Service


def base_run(service: Service, worker: FakeWorker, shape: Shape, *, checkpoint: bool = True) -> str:
    """A base run that has made a model of that shape, or will."""
    overrides = {"depth": shape.depth, "max_seq_len": shape.context, "tokenizer": "tokenizer/x"}
    overrides |= {"total_batch_size": 2 * shape.context, "device_batch_size": 1}
    run = post_run(service, stage="base", config="debug_cpu", gpus=0, overrides=overrides)["id"]
    if checkpoint:
        claim = worker.claim()
        event = {"kind": "checkpoint", "step": 10, "stage": "base", "bytes": 7, "sha256": "a" * 64}
        event |= {"path": f"base_checkpoints/{run}/step_000010", "model": shape.to_config()}
        assert worker.events(claim, event).status_code == 200
        worker.finish(claim)
    return str(run)


def test_the_parents_checkpoint_gives_the_shape_of_the_model(service: Service) -> None:
    worker = FakeWorker(service)
    small, large = Shape(4, 300, 64), Shape(6, 500, 128)
    first, second = base_run(service, worker, small), base_run(service, worker, large)
    assert post_plan(service, stage="mid")["parameters"] == large.params, "the newest"
    plan = post_plan(service, stage="mid", parent=first, overrides={"num_iterations": 3}, target_vram_gb=4)
    assert plan["parameters"] == small.params and plan["vocab_size"] == 300
    assert (plan["steps"], plan["total_batch_size"]) == (3, 32 * 64) and plan["fits"]
    chosen = service.client.get(f"/runs/{first}/checkpoints").json()["items"][0]
    for named in (chosen["id"], chosen["path"]):
        overrides = {"base_checkpoint": named}
        assert post_plan(service, stage="mid", overrides=overrides)["parameters"] == small.params
    wrong = post_plan(service, stage="rl", parent=second)
    assert wrong["problems"][0]["pointer"] == "/parent" and wrong["memory"] is None
    rl = post_plan(service, stage="sft", parent=second, gpu="RTX 4090")
    assert rl["parameters"] == large.params and rl["steps"] is None and rl["notes"]


def test_a_parent_that_is_not_done_says_what_it_will_make(service: Service) -> None:
    worker = FakeWorker(service)
    shape = Shape(6, 16384, 128)  # no tokenizer is here: the vocabulary is what base would train
    base = base_run(service, worker, shape, checkpoint=False)
    mid = post_run(service, stage="mid", parent=base, gpus=0)["id"]
    plan = post_plan(service, stage="sft", parent=mid)
    assert plan["parameters"] == shape.params and plan["memory"]["total"] > 4 * shape.params


def test_without_a_checkpoint_a_plan_says_that_it_does_not_know(service: Service) -> None:
    plan = post_plan(service, stage="rl", target_vram_gb=8)
    assert plan["memory"] is None and plan["fits"] is None and plan["steps"] == 467
    assert "there is no sft_checkpoint yet" in plan["notes"][0] and plan["problems"] == []
    for stage in ("tokenizer", "tok_eval", "base_eval", "base_loss", "chat_eval"):
        assert post_plan(service, stage=stage)["notes"]
