"""Every pipeline that ships can be started here or on GPUs: each step is checked, nothing is trained."""

from __future__ import annotations

from typing import Any

import pytest

from nanochat_client.types import PipelineCreate
from server.pipelines import presets
from tests.server.fake_worker import FakeWorker
from tests.services import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
#: the chain of the two long ones
CHAIN = ["tokenizer", "base", "base_eval", "mid", "chat_eval", "sft", "chat_eval", "rl", "chat_eval"]
GPUS = {"speedrun": 8}


@pytest.mark.parametrize("name", sorted(presets.files()))
def test_the_pretraining_of_every_pipeline_fits_what_it_is_for(service: Service, name: str) -> None:
    (step,) = (step for step in presets.find(name).steps if step.stage == "base")
    gpus = {"gpus": GPUS[name], "gpu": "H100"} if name in GPUS else {"gpus": 0}
    answer = service.client.post("/plans", json={"stage": "base", "config": step.config, **gpus})
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    assert plan["problems"] == [] and plan["fits"] in (True, None)
    assert (plan["gpus"], plan["config"]["run"]) == (gpus["gpus"], step.config)


@pytest.mark.parametrize("name", sorted(presets.files()))
def test_a_shipped_pipeline_is_taken_by_its_name(service: Service, name: str) -> None:
    FakeWorker(service, gpus=GPUS.get(name, 0))
    answer = service.client.post("/pipelines", json={"preset": name})
    assert answer.status_code == 201, answer.text
    steps = presets.find(name).steps
    assert [(run["stage"], run["preset"]) for run in answer.json()["runs"]] == [
        (step.stage, step.config) for step in steps
    ]


def test_what_ships_is_listed_with_steps_that_can_be_sent_back(service: Service) -> None:
    listed = service.client.get("/pipelines/presets").json()["items"]
    assert {item["name"] for item in listed} == set(presets.files())
    (demo,) = (item for item in listed if item["name"] == "demo")
    assert [step["stage"] for step in demo["steps"]] == ["tokenizer", "base", "sft", "chat_eval"]
    answer = service.client.post("/pipelines", json={"name": "again", "steps": demo["steps"]})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("name", ["full-demo", "speedrun"])
def test_every_model_is_measured_and_none_waits_for_a_measurement(service: Service, name: str) -> None:
    del service
    pipeline: PipelineCreate = presets.find(name)
    steps = {step.name: step for step in pipeline.steps}
    assert [step.stage for step in pipeline.steps] == CHAIN
    measured = set()
    before = ""
    for step in pipeline.steps:
        parent = step.parent or before
        if step.stage.endswith("_eval"):
            measured.add(steps[parent].stage)
        elif parent:
            assert not steps[parent].stage.endswith("_eval"), step.name
        before = step.name
    assert measured == {"base", "mid", "sft", "rl"}
    assert [step.name for step in pipeline.steps if step.optional] == ["base_eval"]
