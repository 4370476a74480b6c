"""Bits per byte of a stored checkpoint, by one rank and by two."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.nanochat.trainers import Home

LOSS = {"device": "cpu", "dtype": "float32", "device_batch_size": 2, "split_tokens": 512, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    made = home.run("scripts.base_train", home.base_config(num_iterations=2), run="parent")
    assert made.code == 0, made.log
    return home


def test_two_ranks_measure_what_one_measures_on_the_same_text(home: Home) -> None:
    values = []
    for ranks, batch in ((1, 2), (2, 1)):
        config = {**LOSS, "data": str(home.corpus), "device_batch_size": batch, "processes": ranks}
        attempt = home.run("scripts.base_loss", config, run=f"loss{ranks}", ranks=ranks)
        assert attempt.code == 0, attempt.log
        (event,) = attempt.events("eval")
        assert event["name"] == "base_loss" and event["counts"] == {"train": 512, "val": 512}
        assert event["details"]["checkpoint"] == "base_checkpoints/parent/step_000002"
        assert len(attempt.events("sample")) >= 5 and attempt.events("end")[-1]["status"] == "succeeded"
        assert set(attempt.events("metric")[-1]["values"]) == {"base_loss/train_bpb", "base_loss/val_bpb"}
        values.append(event["values"])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    # a model of two steps is near the uniform distribution over 300 tokens of one byte and more
    assert all(0.5 < value < math.log2(300) + 0.5 for value in values[0].values())


def test_a_split_shorter_than_one_pass_says_what_to_change(home: Home) -> None:
    config = {**LOSS, "data": str(home.corpus), "split_tokens": 3}
    attempt = home.run("scripts.base_loss", config, run="short")
    assert attempt.failure is not None and attempt.failure["reason"] == "data_error"
    assert "smaller device_batch_size" in attempt.failure["message"]


def test_without_a_checkpoint_it_says_what_to_train(tmp_path: Path) -> None:
    attempt = Home(tmp_path).run("scripts.base_loss", LOSS, run="nothing")
    assert attempt.failure is not None and "train stage 'base'" in attempt.failure["message"]
