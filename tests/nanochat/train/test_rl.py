"""Reinforcement learning by real processes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nanochat.checkpoint import find_checkpoints, load_model, read_meta, verify
from nanochat.stages.rl import RlConfig
from nanochat.tasks.registry import open_task
from nanochat.tasks.rewards import Answer
from nanochat.tasks.task import dialogue
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl
from nanochat.train.rl import (
    Rollout,
    chosen_mask,
    micro_batches,
    micro_loss,
    problems_of,
    with_advantages,
)
from tests.nanochat.trainers import Home

SUMS = open_task("sums", "train", Path())
RL: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "tasks": "sums",
    "rewards": "exact:1.0,format:0.5,short:0.5",
    "examples_per_step": 4,
    "num_samples": 4,
    "max_new_tokens": 8,
    "device_batch_size": 4,
    "eval_every": 0,
    "sft_checkpoint": "chatsft_checkpoints/parent",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    base = home.run("scripts.base_train", home.base_config(num_iterations=2, max_seq_len=64), run="parent")
    assert base.code == 0, base.log
    sft = {"device": "cpu", "dtype": "float32", "task_examples": 256, "init_lr_frac": 1.0, "eval_every": 0}
    tuned = home.run("scripts.chat_sft", {**sft, "tasks": "sums,identity"}, run="parent")
    assert tuned.code == 0, tuned.log
    return home


@pytest.mark.parametrize("ranks", [1, 2])
def test_after_kill_9_it_goes_on_with_the_same_losses_and_answers(home: Home, ranks: int) -> None:
    config = {**RL, "save_every": 2, "resume_from": "auto", "processes": ranks, "num_iterations": 9}
    whole = home.run("scripts.chat_rl", config, run=f"whole{ranks}", ranks=ranks)
    assert whole.code == 0, whole.log
    expected = whole.losses()
    assert sorted(expected) == list(range(1, 10)) and len(set(expected.values())) > 1
    run = f"killed{ranks}"
    killed = home.start("scripts.chat_rl", config, run=run, ranks=ranks)
    killed.until(lambda attempt: len(attempt.events("checkpoint")) >= 1)
    killed.kill_everything()
    resumed = home.run("scripts.chat_rl", config, run=run, attempt=2, ranks=ranks)
    assert resumed.code == 0, resumed.log
    assert resumed.events("phase")[-1]["phase"] == "resume"
    assert {**killed.losses(), **resumed.losses()} == expected


def test_the_loss_does_not_depend_on_micro_batches_or_ranks(home: Home) -> None:
    found = []
    for run, size, ranks in (("big", 16, 1), ("small", 2, 1), ("ranks", 4, 2)):
        config = {**RL, "device_batch_size": size, "num_iterations": 2, "processes": ranks}
        attempt = home.run("scripts.chat_rl", config, run=run, ranks=ranks)
        assert attempt.code == 0, attempt.log
        rewards = [
            e["values"]["reward/mean"] for e in attempt.events("metric") if "reward/mean" in e["values"]
        ]
        found.append([*attempt.losses().values(), *rewards])
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-4)


def test_the_loss_and_its_gradient_are_those_of_the_policy_gradient(home: Home) -> None:
    place = find_checkpoints(home.base / "chatsft_checkpoints", "parent")[-1]
    model, tokenizer, _ = load_model(place, torch.device("cpu"), torch.float32)
    model.train()
    rows = [([1, 2, 3, 4, 5], [0, 0, 1, 0, 1]), ([1, 7, 8], [0, 1, 1])]
    given = Answer(SUMS, dialogue("", ""), "", True, 0.0)
    batch = [
        Rollout(row, given, {}, 0.0, False, advantage)
        for row, advantage in zip(rows, (0.7, -0.4), strict=True)
    ]
    expected = torch.zeros(())
    for (ids, mask), one in zip(rows, batch, strict=True):
        log_TV = model(torch.tensor([ids])).float().log_softmax(-1)[0]
        for at in range(1, len(ids)):
            expected = expected - 0.5 * one.advantage * mask[at] * log_TV[at - 1, ids[at]]
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer: Any = SimpleNamespace(
        model=model, tokenizer=tokenizer, world=SimpleNamespace(device=torch.device("cpu"))
    )
    loss = micro_loss(trainer, batch, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3)


def test_advantages_are_rewards_minus_the_groups_mean(home: Home) -> None:
    given = Answer(SUMS, dialogue("", ""), "", True, 0.0)
    group = [Rollout(([1, 2], [0, 1]), given, {}, value, False) for value in (1.0, 0.0, 0.0, 1.0, 0.5)]
    assert [one.advantage for one in with_advantages(group)] == [0.5, -0.5, -0.5, 0.5, 0.0]
    assert sum(map(len, micro_batches(with_advantages(group), 2))) == 4  # one moves nothing


def test_a_reward_for_short_answers_makes_answers_shorter(home: Home) -> None:
    config = {**RL, "rewards": "short:1.0", "num_iterations": 30, "init_lr_frac": 0.2, "max_new_tokens": 12}
    attempt = home.run("scripts.chat_rl", config, run="short")
    assert attempt.code == 0, attempt.log
    metrics = [e["values"] for e in attempt.events("metric") if "reward/mean" in e["values"]]
    rewards = [values["reward/mean"] for values in metrics]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1, rewards


def test_pass_at_k_of_held_out_problems_is_measured_and_answers_are_shown(home: Home) -> None:
    config = {**RL, "num_iterations": 4, "eval_every": 2, "eval_examples": 6, "eval_samples": 4}
    attempt = home.run("scripts.chat_rl", config, run="measured")
    assert attempt.code == 0, attempt.log
    metrics = [event for event in attempt.events("metric") if "val/pass@4" in event["values"]]
    assert [event["step"] for event in metrics] == [0, 2, 4]
    assert attempt.events("sample")[0]["prompt"] and "reward" in attempt.events("sample")[0]["text"]
    place = find_checkpoints(home.base / "chatrl_checkpoints", "measured")[-1]
    meta = read_meta(place)
    parent = home.base / meta["parent"]["path"]
    assert meta["stage"] == "rl" and meta["parent"]["sha256"] == verify(parent)
    assert meta["parent"]["path"].startswith("chatsft_checkpoints/parent/")
    announced = attempt.events("checkpoint")[-1]["metrics"]
    assert 0 <= announced["val/pass@1"] <= announced["val/pass@4"] <= 1 and "reward/mean" in announced
    before, _, _ = load_model(parent, torch.device("cpu"), torch.float32)
    after, _, _ = load_model(place, torch.device("cpu"), torch.float32)
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)


def test_memory_does_not_grow_over_200_steps(home: Home) -> None:
    config = {**RL, "num_iterations": 200, "examples_per_step": 2, "init_lr_frac": 0.001}
    attempt = home.start("scripts.chat_rl", config, run="memory")
    assert attempt.wait() == 0, attempt.log
    peaks = {
        event["step"]: event["values"]["mem/peak_bytes"]
        for event in attempt.events("metric")
        if "reward/mean" in event["values"]
    }
    assert len(peaks) == 200
    assert peaks[200] - peaks[50] < 8 << 20, {step: peaks[step] for step in (1, 10, 50, 100, 200)}


def test_what_a_tool_says_is_not_learned(home: Home) -> None:
    tokenizer = Tokenizer.load(home.base / "tokenizer" / "tok")
    start, end = tokenizer.special("<|output_start|>"), tokenizer.special("<|output_end|>")
    assert chosen_mask(tokenizer, [1, 2, start, 3, 4, end, 5]) == [1, 1, 0, 0, 0, 0, 1]
    assert chosen_mask(tokenizer, [1, start, 3]) == [1, 0, 0] and chosen_mask(tokenizer, []) == []


def test_problems_of_a_step_are_fresh_and_the_same_after_a_resume() -> None:
    cfg = RlConfig(examples_per_step=8)
    tasks = [SUMS, open_task("spelling", "train", Path())]
    first = [problem for _, problem in problems_of(cfg, tasks, 3)]
    assert first == [problem for _, problem in problems_of(cfg, tasks, 3)]
    assert not {p.question for p in first} & {p.question for _, p in problems_of(cfg, tasks, 4)}


def test_files_cannot_be_rewarded(home: Home) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (home.base / "some.jsonl").write_text(json.dumps(talk))
    attempt = home.run("scripts.chat_rl", {**RL, "tasks": "some.jsonl"}, run="files")
    assert attempt.failure is not None and attempt.failure["reason"] == "config_error"


def test_out_of_memory_halves_what_is_done_at_once_and_changes_no_step(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**RL, "num_iterations": 3}
    whole = home.run("scripts.chat_rl", config, run="enough")
    assert whole.code == 0, whole.log
    made, learned = rl.make_engine, rl.micro_loss

    def small_engine(model: Any, tokenizer: Any, lanes: int, tokens: int) -> Any:
        if lanes > 4:
            raise torch.OutOfMemoryError("too many lanes")
        return made(model, tokenizer, lanes, tokens)

    def small_loss(trainer: Any, batch: Any, share: float) -> Any:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("too many answers")
        return learned(trainer, batch, share)

    monkeypatch.setattr(rl, "make_engine", small_engine)
    monkeypatch.setattr(rl, "micro_loss", small_loss)
    attempt = home.run("scripts.chat_rl", config, run="short_of_memory")
    assert attempt.code == 0, attempt.log
    said = [event["message"] for event in attempt.events("warning")]
    assert [text for text in said if "lanes" in text] == [
        "out of memory while answering: going on with 8 lanes",
        "out of memory while answering: going on with 4 lanes",
    ]
    assert sum("going on with device_batch_size 2" in text for text in said) == 1
    assert attempt.losses() == pytest.approx(whole.losses(), abs=1e-4)
