"""From any checkpoint back to data, tokenizer, config and code."""

from __future__ import annotations

from typing import Any

from tests.server.checkpoints.chain import CODE, artefact, checkpoint, path_of, play
from tests.server.fake_worker import FakeWorker, post_run
from tests.services import Service


def lineage(service: Service, run_id: str) -> dict[str, Any]:
    (found,) = service.client.get(f"/runs/{run_id}/checkpoints").json()["items"]
    answer = service.client.get(f"/checkpoints/{found['id']}/lineage")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_model_leads_back_to_its_text_tokenizer_config_and_code(service: Service) -> None:
    runs = play(service, FakeWorker(service))
    found = lineage(service, runs["sft"]["id"])
    assert [step["stage"] for step in found["steps"]] == ["sft", "mid", "base", "tokenizer"]
    assert found["complete"] is True and found["missing"] is None
    sft, mid, base, tokenizer = found["steps"]
    assert sft["parent"] == artefact(runs["mid"]) | {"checkpoint": mid["checkpoint"]}
    assert base["tokenizer"]["checkpoint"] == tokenizer["checkpoint"]
    assert base["data"]["source"] == tokenizer["data"]["source"] == "pydocs"
    assert sft["data"] == {"source": "sums", "examples": 9}
    assert all(step["code"] == CODE for step in found["steps"])
    assert (base["preset"], base["config"]["depth"]) == ("debug_cpu", 2)
    assert base["run_name"] == "whole-base" and base["path"] == path_of(runs["base"])


def test_a_parent_that_the_service_does_not_know_is_named(service: Service) -> None:
    worker = FakeWorker(service)
    runs = play(service, worker)
    posted = service.client.post(
        "/runs", json={"stage": "sft", "gpus": 0, "overrides": {"mid_checkpoint": "x"}}
    )
    claim = worker.claim()
    foreign = {"path": "base_checkpoints/theirs/step_000001", "sha256": "9" * 64}
    worker.events(claim, checkpoint(posted.json(), corpus={"source": "sums"}, code=CODE, parent=foreign))
    found = lineage(service, posted.json()["id"])
    assert found["missing"] == foreign | {"checkpoint": None}
    assert found["complete"] is False and len(found["steps"]) == 1
    del runs


def test_the_same_path_with_other_content_is_not_the_parent(service: Service) -> None:
    worker = FakeWorker(service)
    runs = play(service, worker)
    posted = service.client.post("/runs", json={"stage": "sft", "gpus": 0})
    claim = worker.claim()
    other = artefact(runs["mid"]) | {"sha256": "8" * 64}
    worker.events(claim, checkpoint(posted.json(), corpus={"source": "sums"}, code=CODE, parent=other))
    assert lineage(service, posted.json()["id"])["missing"] == other | {"checkpoint": None}


def test_checkpoints_of_older_trainers_are_followed_by_their_runs(service: Service) -> None:
    worker = FakeWorker(service)
    base = post_run(service, stage="base", config="debug_cpu", overrides={"tokenizer": "t"})
    claim = worker.claim()
    worker.events(claim, checkpoint(base))
    worker.finish(claim)
    sft = post_run(service, stage="sft", gpus=0, parent=base["id"])
    worker.events(worker.claim(), checkpoint(sft))
    found = lineage(service, sft["id"])
    assert [step["stage"] for step in found["steps"]] == ["sft", "base"]
    assert found["complete"] is False and found["missing"] is None


def test_there_is_no_lineage_of_what_is_not_there(service: Service) -> None:
    assert service.client.get("/checkpoints/c123/lineage").status_code == 404
