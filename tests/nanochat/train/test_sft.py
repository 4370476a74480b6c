"""Fine-tuning and chat evaluation by real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.checkpoint import find_checkpoints, read_meta, verify
from tests.nanochat.trainers import Home

SFT: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "task_examples": 96,
    "device_batch_size": 4,
    "target_examples_per_step": 16,
    "init_lr_frac": 1.0,
    "eval_every": 0,
    "mid_checkpoint": "base_checkpoints/parent",
}
EVAL = {
    "device": "cpu", "dtype": "float32", "task_name": "identity,smalltalk,spelling,sums", "max_problems": 6,
    "batch_size": 4, "max_new_tokens": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    config = home.base_config(num_iterations=2, max_seq_len=128, device_batch_size=1)
    parent = home.run("scripts.base_train", config, run="parent")
    assert parent.code == 0, parent.log
    return home


@pytest.fixture(scope="module")
def tuned(home: Home) -> Path:
    attempt = home.run("scripts.chat_sft", {**SFT, "eval_every": 3, "num_iterations": 6}, run="tuned")
    assert attempt.code == 0, attempt.log
    return home.base / "chatsft_checkpoints" / "tuned" / "step_000006"


@pytest.mark.parametrize("ranks", [1, 2])
def test_after_kill_9_fine_tuning_goes_on_with_the_same_losses(home: Home, ranks: int) -> None:
    config = {**SFT, "task_examples": 160, "save_every": 3, "resume_from": "auto", "processes": ranks}
    config |= {"num_iterations": 14}  # more than one epoch
    whole = home.run("scripts.chat_sft", config, run=f"whole{ranks}", ranks=ranks)
    assert whole.code == 0, whole.log
    expected = whole.losses()
    assert sorted(expected) == list(range(1, 15)) and expected[14] < expected[1]
    run = f"killed{ranks}"
    killed = home.start("scripts.chat_sft", config, run=run, ranks=ranks)
    killed.until(lambda attempt: len(attempt.events("checkpoint")) >= 1)
    killed.kill_everything()
    resumed = home.run("scripts.chat_sft", config, run=run, attempt=2, ranks=ranks)
    assert resumed.code == 0, resumed.log
    assert resumed.events("phase")[-1]["phase"] == "resume"
    assert {**killed.losses(), **resumed.losses()} == expected


def test_the_loss_does_not_depend_on_how_a_step_is_cut_into_micro_batches(home: Home) -> None:
    """Token-weighted: 1 × 16, 4 × 4 and 2 ranks × 2 × 4 conversations have one loss."""
    first = []
    for run, size, ranks in (("big", 16, 1), ("small", 4, 1), ("ranks", 4, 2)):
        config = {**SFT, "device_batch_size": size, "num_iterations": 2, "task_examples": 16}
        attempt = home.run("scripts.chat_sft", {**config, "processes": ranks}, run=run, ranks=ranks)
        assert attempt.code == 0, attempt.log
        first.append([attempt.losses()[1], attempt.losses()[2]])
    assert first[1] == pytest.approx(first[0], abs=2e-4)
    assert first[2] == pytest.approx(first[0], abs=2e-4)


def test_the_checkpoint_names_its_parent_and_verifies(home: Home, tuned: Path) -> None:
    parent = home.base / "base_checkpoints" / "parent" / "step_000002"
    meta = read_meta(tuned)
    expected = {"path": "base_checkpoints/parent/step_000002", "sha256": verify(parent)}
    assert (meta["stage"], meta["parent"]) == ("sft", expected)
    assert "sft/val_loss" not in meta["metrics"] or meta["metrics"]["sft/val_loss"] > 0
    assert verify(tuned)


def test_without_a_parent_the_newest_base_model_is_taken(home: Home) -> None:
    config = {key: value for key, value in SFT.items() if key != "mid_checkpoint"}
    attempt = home.run("scripts.chat_sft", {**config, "num_iterations": 1}, run="orphan")
    assert attempt.code == 0, attempt.log
    place = find_checkpoints(home.base / "chatsft_checkpoints", "orphan")[0]
    assert read_meta(place)["parent"]["path"] == "base_checkpoints/parent/step_000002"


def test_conversations_longer_than_the_context_are_cut_and_never_make_an_empty_batch(home: Home) -> None:
    file = home.base / "long.jsonl"
    long = {
        "messages": [{"role": "user", "content": "x " * 500}, {"role": "assistant", "content": "never seen"}]
    }
    short = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho " * 500}]}
    file.write_text("\n".join([json.dumps(long)] * 40 + [json.dumps(short)] * 3))
    attempt = home.run("scripts.chat_sft", {**SFT, "tasks": str(file), "num_iterations": 3}, run="long")
    assert attempt.code == 0, attempt.log
    assert len(attempt.losses()) == 3 and all(0 < loss < 10 for loss in attempt.losses().values())


def test_only_conversations_that_are_too_long_is_an_error_that_says_so(home: Home) -> None:
    file = home.base / "too_long.jsonl"
    file.write_text(
        json.dumps([{"role": "user", "content": "x " * 500}, {"role": "assistant", "content": "never"}])
    )
    attempt = home.run("scripts.chat_sft", {**SFT, "tasks": str(file)}, run="toolong")
    assert attempt.failure is not None and attempt.failure["reason"] == "data_error"
    assert "raise max_seq_len" in attempt.failure["message"]


def test_an_unknown_task_is_a_config_error(home: Home) -> None:
    attempt = home.run("scripts.chat_sft", {**SFT, "tasks": "sumz"}, run="unknown")
    assert attempt.failure is not None
    assert attempt.failure["reason"] == "config_error" and "nearest is 'sums'" in attempt.failure["message"]


def test_validation_is_measured_on_held_out_problems(home: Home, tuned: Path) -> None:
    events = [
        json.loads(line)
        for line in (home.base / "runs" / "tuned" / "attempt_1" / "events.jsonl").read_text().splitlines()
    ]
    measured = [event for event in events if event["kind"] == "metric" and "sft/val_loss" in event["values"]]
    assert [event["step"] for event in measured] == [3, 6]
    assert all(0 < event["values"]["sft/val_loss"] < 10 for event in measured)
    announced = [event for event in events if event["kind"] == "checkpoint"]
    assert "sft/val_loss" in announced[-1]["metrics"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_chat_eval_scores_before_and_after(home: Home, tuned: Path, ranks: int) -> None:
    config = {**EVAL, "compare_parent": True, "checkpoint": str(tuned), "processes": ranks}
    attempt = home.run("scripts.chat_eval", config, run=f"eval{ranks}", ranks=ranks)
    assert attempt.code == 0, attempt.log
    before, after = attempt.events("eval")
    assert (before["name"], after["name"]) == ("chat_eval/before", "chat_eval")
    assert before["details"]["checkpoint"] == "base_checkpoints/parent/step_000002"
    assert after["details"]["checkpoint"] == "chatsft_checkpoints/tuned/step_000006"
    assert after["counts"] == {"identity": 6, "smalltalk": 6, "spelling": 6, "sums": 6}
    for event in (before, after):
        for task, share in event["values"].items():
            low, high = event["details"]["intervals"][task]
            assert 0 <= low <= share <= high <= 1
        assert len(event["details"]["examples"]) == 20
        assert set(event["details"]["examples"][0]) == {"task", "prompt", "answer", "expected", "ok"}
    assert attempt.events("end")[-1]["status"] == "succeeded"


def test_one_rank_and_two_ranks_give_the_same_answers(home: Home, tuned: Path) -> None:
    values = []
    for ranks in (1, 2):
        config = {
            **EVAL,
            "checkpoint": "chatsft_checkpoints/tuned",
            "task_name": "sums,identity",
            "processes": ranks,
        }
        attempt = home.run("scripts.chat_eval", config, run=f"same{ranks}", ranks=ranks)
        values.append([(event["values"], event["counts"]) for event in attempt.events("eval")])
    assert values[0] == values[1]


def test_without_any_checkpoint_it_says_what_to_train_first(tmp_path: Path) -> None:
    attempt = Home(tmp_path).run("scripts.chat_eval", EVAL, run="nothing")
    assert attempt.failure is not None and attempt.failure["reason"] == "data_error"
    assert "train stage" in attempt.failure["message"]


def test_a_second_epoch_may_hold_fewer_conversations(home: Home) -> None:
    config = {"device": "cpu", "dtype": "float32", "tasks": "identity", "task_examples": 40, "num_epochs": 4}
    config |= {"target_examples_per_step": 4, "eval_every": 0, "multi_turn": 0.5}
    attempt = home.run("scripts.chat_sft", config, run="epochs")
    assert attempt.code == 0, attempt.log
    assert len(attempt.losses()) % 4 == 0 and len(attempt.losses()) > 8
