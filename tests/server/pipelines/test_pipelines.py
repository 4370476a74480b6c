"""Pipelines are runs with parents; they move on by themselves and end as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nanochat_client.types import RunState
from server.pipelines import presets
from server.pipelines.service import state_of
from tests.server.fake_worker import FakeWorker, run_of, store_checkpoint, until
from tests.services import Service

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
STEPS: list[dict[str, Any]] = [
    {"name": "tok", "stage": "tokenizer", "overrides": {"vocab_size": 1000}},
    {"name": "base", "stage": "base", "config": "debug_cpu"},
    {"name": "sft", "stage": "sft", "gpus": 0},
    {"name": "eval", "stage": "chat_eval", "gpus": 0},
]
#: what a step over four GPUs has
WIDE: dict[str, Any] = {"gpus": 4, "overrides": {"total_batch_size": 4096}}


def post(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/pipelines", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_pipeline_runs_its_steps_in_order_and_names_its_model(service: Service) -> None:
    worker = FakeWorker(service, slots=4)
    made = post(service, name="mine", steps=STEPS, overrides={"base": {"depth": 4}})
    assert [run["name"] for run in made["runs"]] == ["mine-tok", "mine-base", "mine-sft", "mine-eval"]
    assert [run["state"] for run in made["runs"]] == ["queued", "waiting", "waiting", "waiting"]
    assert made["runs"][1]["config"]["depth"] == 4 and made["model"] is None
    paths = {}
    for run in made["runs"]:
        claim = worker.claim()
        assert claim["run_id"] == run["id"]
        if run["stage"] == "sft":
            assert claim["config"]["mid_checkpoint"] == paths["base"]
        if run["stage"] == "chat_eval":
            assert claim["config"]["checkpoint"] == paths["sft"]
        if run["stage"] != "chat_eval":
            paths[run["stage"]] = f"{run['stage']}_checkpoints/{run['id']}/step_000010"
            model = run["stage"] != "tokenizer"
            await store_checkpoint(
                service, run["id"], run["stage"], paths[run["stage"]], step=10, model=model
            )
        worker.finish(claim)
    url = f"/pipelines/{made['id']}"
    done = service.client.get(url).json()
    assert done["state"] == "succeeded" and done["model"] == "mine-sft:sft:10"
    assert service.client.get("/pipelines").json()["items"][0]["id"] == made["id"]
    assert service.client.post(f"{url}/cancel").status_code == 409
    of_it = service.client.get("/runs", params={"pipeline": made["id"]}).json()["items"]
    assert len(of_it) == 4


def test_a_step_that_fails_fails_the_rest(service: Service) -> None:
    worker = FakeWorker(service)
    made = post(service, steps=STEPS)
    worker.finish(worker.claim(), "failed", reason="data_error")
    for run in made["runs"][1:]:
        assert until(service, run["id"], "failed")["reason"] == "parent_failed"
    assert service.client.get(f"/pipelines/{made['id']}").json()["state"] == "failed"


def test_an_optional_step_may_fail_and_the_rest_succeeds(service: Service) -> None:
    worker = FakeWorker(service)
    steps = [STEPS[0], {"name": "look", "stage": "tok_eval", "optional": True}]
    made = post(service, steps=steps)
    assert [run["optional"] for run in made["runs"]] == [False, True]
    first = worker.claim()
    saved = {"kind": "checkpoint", "step": 0, "path": "tokenizer/t", "bytes": 1, "sha256": "0" * 64}
    worker.events(first, saved)
    worker.finish(first)
    claim = worker.claim()
    assert service.client.get(f"/pipelines/{made['id']}").json()["state"] == "starting"
    worker.finish(claim, "failed", reason="data_error", message="no data")
    until(service, made["runs"][1]["id"], "failed")
    assert service.client.get(f"/pipelines/{made['id']}").json()["state"] == "succeeded"


def test_cancel_ends_what_has_not_ended(service: Service) -> None:
    worker = FakeWorker(service)
    made = post(service, steps=STEPS)
    claim = worker.claim()
    answer = service.client.post(f"/pipelines/{made['id']}/cancel")
    assert answer.status_code == 202
    assert worker.finish(claim, "stopped").json() == {"state": "cancelled"}
    states = {run_of(service, run["id"])["state"] for run in made["runs"]}
    assert states == {"cancelled"}


def test_the_same_idempotency_key_makes_one_pipeline(service: Service) -> None:
    answers = [
        service.client.post("/pipelines", json={"steps": STEPS}, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len(service.client.get("/runs").json()["items"]) == 4


def test_a_step_spreads_over_the_nodes_that_it_asks_for(service: Service) -> None:
    step = {**STEPS[1], **WIDE, "nodes": 2, "min_nodes": 1}
    made = post(service, steps=[STEPS[0], step, {**STEPS[2], "parent": "base"}])
    assert [(run["gpus"], run["nodes"]) for run in made["runs"]] == [(0, 1), (4, 2), (0, 1)]


@sqlite_only
def test_bad_pipelines_are_refused_whole_with_pointers(service: Service) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({}, "/preset"),
        ({"preset": "demoo"}, "/preset"),
        ({"steps": [{"name": "a", "stage": "bass"}]}, "/steps/0/stage"),
        ({"steps": [STEPS[0], {**STEPS[1], "overrides": {"dept": 1}}]}, "/steps/1/overrides/dept"),
        ({"steps": STEPS, "overrides": {"base": {"depth": 0}}}, "/overrides/base/depth"),
        ({"steps": STEPS, "overrides": {"bass": {"depth": 1}}}, "/overrides/bass"),
        ({"steps": [STEPS[0], STEPS[0]]}, "/steps/1/name"),
        ({"steps": [STEPS[0], {**STEPS[1], "parent": "nobody"}]}, "/steps/1/parent"),
        ({"steps": [STEPS[0], STEPS[2]]}, "/steps/1/parent"),
        ({"steps": [{**STEPS[0], "checkpoint": "worst"}]}, "/steps/0/checkpoint"),
        ({"steps": [{**STEPS[0], "gpus": 3}]}, "/steps/0/gpus"),
        ({"steps": [{**STEPS[0], "optional": True}, STEPS[1]]}, "/steps/1/parent"),
        ({"steps": [{**STEPS[0], "nodes": 2}]}, "/steps/0/nodes"),
        ({"steps": [STEPS[0], {**STEPS[1], **WIDE, "nodes": 3}]}, "/steps/1/nodes"),
    ]
    for body, pointer in bad:
        answer = service.client.post("/pipelines", json=body)
        assert answer.status_code == 422, body
        assert pointer in [item["pointer"] for item in answer.json()["errors"]], (body, answer.json())
    assert service.client.get("/runs").json()["items"] == []
    assert service.client.get("/pipelines").json()["items"] == []


@sqlite_only
def test_a_shipped_pipeline_is_posted_by_name_and_overridden_by_step(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "pipelines").mkdir(parents=True)
    shipped = tmp_path / "configs" / "pipelines" / "tiny.json"
    shipped.write_text('{"name": "tiny", "steps": [{"name": "tok", "stage": "tokenizer"}]}')
    monkeypatch.setattr(presets, "repo_dir", lambda: tmp_path)
    made = post(service, preset="tiny", overrides={"tok": {"vocab_size": 512}})
    assert made["name"] == "tiny" and made["runs"][0]["config"]["vocab_size"] == 512
    bad = service.client.post("/pipelines", json={"preset": "tiny", "overrides": {"tok": {"vocab_size": 1}}})
    assert bad.json()["errors"][0]["pointer"] == "/overrides/tok/vocab_size"
    unknown = service.client.post("/pipelines", json={"preset": "tinny"})
    assert unknown.json()["errors"][0]["nearest"] == "tiny"


def test_the_state_of_the_whole_follows_from_its_runs() -> None:
    s = RunState
    assert state_of([s.SUCCEEDED, s.RUNNING, s.WAITING]) == s.RUNNING
    assert state_of([s.SUCCEEDED, s.QUEUED, s.WAITING]) == s.QUEUED
    assert state_of([s.PAUSED, s.WAITING]) == s.PAUSED
    assert state_of([s.SUCCEEDED, s.FAILED, s.CANCELLED]) == s.FAILED
    assert state_of([s.SUCCEEDED, s.SUCCEEDED]) == s.SUCCEEDED
