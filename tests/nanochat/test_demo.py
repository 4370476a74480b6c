"""The demo's presets are valid and belong together; the pipeline file is what the API takes."""

from __future__ import annotations

import pytest

from nanochat.configurator import find_preset, validate
from nanochat.paths import repo_dir
from nanochat.stages import STAGES
from nanochat_client.types import PipelineCreate

PIPELINE = PipelineCreate.model_validate_json(
    (repo_dir() / "configs" / "pipelines" / "demo.json").read_text()
)


def test_the_pipeline_is_a_chain_of_the_four_stages() -> None:
    assert PIPELINE.name == "demo"
    assert [step.stage for step in PIPELINE.steps] == ["tokenizer", "base", "sft", "chat_eval"]
    assert all(step.parent is None for step in PIPELINE.steps)


@pytest.mark.parametrize("step", PIPELINE.steps, ids=lambda step: step.name)
def test_every_step_has_a_preset_that_is_valid_on_two_ranks(step: object) -> None:
    stage, config = STAGES[step.stage], step.config  # type: ignore[attr-defined]
    preset = find_preset(config)
    resolved = validate(stage, preset.values)
    assert resolved.run == config and preset.stages()[0:1]
    assert resolved.processes == (2 if stage.distributed else 1)


def test_all_tasks_are_taught_and_scored() -> None:
    sft, chat_eval = find_preset("demo_sft").values, find_preset("demo_chat_eval").values
    assert (
        sft["tasks"].split(",")
        == chat_eval["task_name"].split(",")
        == ["identity", "smalltalk", "spelling", "sums"]
    )
    assert chat_eval["compare_parent"] is True
