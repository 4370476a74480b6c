"""Mid-training by real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanochat.chat import render_conversation
from nanochat.checkpoint import find_checkpoints, read_meta, verify
from nanochat.schedule import stable_decay
from nanochat.tasks.mixture import draw, parse
from nanochat.tokenizer import Tokenizer
from nanochat.train.mid import Conversations
from tests.nanochat.trainers import Home

MID: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "task_examples": 160,
    "device_batch_size": 2,
    "target_examples_per_step": 8,
    "eval_every": 0,
    "base_checkpoint": "base_checkpoints/parent",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    config = home.base_config(num_iterations=2, max_seq_len=64)
    parent = home.run("scripts.base_train", config, run="parent")
    assert parent.code == 0, parent.log
    return home


@pytest.fixture(scope="module")
def tokenizer(home: Home) -> Tokenizer:
    return Tokenizer.load(home.base / "base_checkpoints" / "parent" / "step_000002")


@pytest.mark.parametrize("ranks", [1, 2])
def test_after_kill_9_mid_training_goes_on_with_the_same_losses(home: Home, ranks: int) -> None:
    config = {**MID, "save_every": 3, "resume_from": "auto", "processes": ranks, "num_iterations": 14}
    config |= {"replay": 0.5, "data": home.base_config()["data"]}
    whole = home.run("scripts.mid_train", config, run=f"whole{ranks}", ranks=ranks)
    assert whole.code == 0, whole.log
    expected = whole.losses()
    assert sorted(expected) == list(range(1, 15)) and expected[14] < expected[1]
    run = f"killed{ranks}"
    killed = home.start("scripts.mid_train", config, run=run, ranks=ranks)
    killed.until(lambda attempt: len(attempt.events("checkpoint")) >= 1)
    killed.kill_everything()
    resumed = home.run("scripts.mid_train", config, run=run, attempt=2, ranks=ranks)
    assert resumed.code == 0, resumed.log
    assert resumed.events("phase")[-1]["phase"] == "resume"
    assert {**killed.losses(), **resumed.losses()} == expected


@pytest.mark.parametrize("learn", ["all", "assistant"])
def test_the_loss_does_not_depend_on_micro_batches_or_ranks(home: Home, learn: str) -> None:
    found = []
    for run, size, ranks in (("big", 8, 1), ("small", 1, 1), ("ranks", 2, 2)):
        config = {**MID, "device_batch_size": size, "num_iterations": 2, "learn": learn, "processes": ranks}
        attempt = home.run("scripts.mid_train", config, run=f"{run}-{learn}", ranks=ranks)
        assert attempt.code == 0, attempt.log
        found.append([attempt.losses()[1], attempt.losses()[2]])
    assert found[1] == pytest.approx(found[0], abs=2e-4)
    assert found[2] == pytest.approx(found[0], abs=2e-4)


def test_one_epoch_is_as_many_steps_as_the_tokens_fill(home: Home, tokenizer: Tokenizer) -> None:
    attempt = home.run("scripts.mid_train", {**MID, "eval_every": 4, "total_batch_size": 512}, run="epoch")
    assert attempt.code == 0, attempt.log
    drawn = draw(parse("identity,smalltalk,spelling,sums", home.base), 160, 42, multi_turn=0.3)
    tokens = sum(len(render_conversation(tokenizer, one, 10**6)[0]) for one in drawn)
    assert len(attempt.losses()) == tokens // (8 * 64) > 4
    measured = [e for e in attempt.events("metric") if "val/bpb" in e["values"]]
    assert measured[0]["values"]["val/bpb"] > measured[-1]["values"]["val/bpb"] > 0
    place = find_checkpoints(home.base / "mid_checkpoints", "epoch")[-1]
    meta = read_meta(place)
    parent = home.base / "base_checkpoints" / "parent" / "step_000002"
    expected = {"path": "base_checkpoints/parent/step_000002", "sha256": verify(parent)}
    assert (meta["stage"], meta["parent"]) == ("mid", expected)
    sft = {"device": "cpu", "dtype": "float32", "task_examples": 32, "num_iterations": 1, "eval_every": 0}
    tuned = home.run("scripts.chat_sft", sft, run="from-mid")
    assert tuned.code == 0, tuned.log
    child = find_checkpoints(home.base / "chatsft_checkpoints", "from-mid")[-1]
    newest_mid = read_meta(child)["parent"]["path"]
    assert newest_mid.startswith("mid_checkpoints/")


def test_mid_training_needs_no_more_memory_than_pretraining(home: Home) -> None:
    """One model: of separate processes, with the same rows of the same length."""
    base = home.start("scripts.base_train", home.base_config(max_seq_len=64), run="basemem")
    base.wait()
    mid = home.start("scripts.mid_train", {**MID, "num_iterations": 12}, run="midmem")
    mid.wait()
    peaks = [attempt.events("end")[-1]["peak_bytes"] for attempt in (base, mid)]
    assert peaks[1] < peaks[0] + (24 << 20), peaks  # the tasks' modules and a few conversations


def test_masked_tokens_are_those_the_model_does_not_say(tokenizer: Tokenizer) -> None:
    conversation = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    ids, mask = render_conversation(tokenizer, conversation, 100)
    plain = Conversations([conversation], tokenizer)
    masked = Conversations([conversation], tokenizer, masked=True)
    assert plain.read(0, 2 * len(ids)).tolist() == ids + ids
    assert masked.read(0, len(ids)).tolist() == [
        i if learned else -1 - i for i, learned in zip(ids, mask, strict=True)
    ]
    assert masked.learned(0, len(ids)) == sum(mask) and plain.learned(0, len(ids)) == len(ids)


def test_documents_lie_whole_between_the_conversations(tokenizer: Tokenizer) -> None:
    conversations = [[{"role": "user", "content": c}, {"role": "assistant", "content": c}] for c in "abcdef"]
    documents = [np.array([tokenizer.bos, *tokenizer.encode(text)]) for text in ("one two", "three", "four")]

    def mixed(seed: int) -> list[tuple[int, ...]]:
        stream = Conversations(conversations, tokenizer, masked=True)
        said = stream.learned(0, stream.total())
        stream.mix(documents, seed)
        assert stream.learned(0, stream.total()) == said + sum(map(len, documents))
        ids = stream.read(0, stream.total())
        ids = np.where(ids < 0, -1 - ids, ids)
        starts = np.flatnonzero(ids[1:] == tokenizer.bos) + 1
        return [tuple(piece.tolist()) for piece in np.split(ids, starts)]

    rendered = [tuple(render_conversation(tokenizer, one, 100)[0]) for one in conversations]
    assert sorted(mixed(1)) == sorted([*rendered, *(tuple(one.tolist()) for one in documents)])
    assert mixed(1) == mixed(1) != mixed(2)


def test_the_learning_rate_falls_over_the_last_fifth() -> None:
    assert [stable_decay(p) for p in (0.0, 0.5, 0.8, 0.9, 1.0)] == pytest.approx([1, 1, 1, 0.5, 0])


def test_a_batch_that_does_not_fit_the_ranks_is_said_with_the_nearest(home: Home) -> None:
    attempt = home.run("scripts.mid_train", {**MID, "total_batch_size": 100}, run="uneven")
    assert attempt.failure is not None and attempt.failure["reason"] == "config_error"
    assert "the nearest valid value is 128" in attempt.failure["message"]


def test_files_without_tasks_are_learned_too(home: Home) -> None:
    file: Path = home.base / "few.jsonl"
    line = json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho " * 200}])
    file.write_text("\n".join([line] * 3))
    config = {**MID, "tasks": str(file), "num_iterations": 3, "eval_every": 1}
    attempt = home.run("scripts.mid_train", config, run="file")
    assert attempt.code == 0, attempt.log
    assert len(attempt.losses()) == 3 and attempt.losses()[3] < attempt.losses()[1]
