"""chat_eval over data sets: letters and numbers, the same on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nanochat.tasks.test_datasets import ANSWER, empty_packages, questions, write_rows
from tests.nanochat.trainers import Home


def test_data_sets_are_scored_on_any_number_of_ranks(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_rows(home.base, "mmlu", questions(9))
    write_rows(home.base, "gsm8k", [{"question": f"how many are {i}?", "answer": ANSWER} for i in range(3)])
    assert home.train_tokenizer().code == 0
    made = home.run(
        "scripts.base_train",
        home.base_config(num_iterations=2, max_seq_len=128, device_batch_size=1),
        run="parent",
    )
    assert made.code == 0, made.log
    found = []
    for ranks in (1, 2):
        config = {"device": "cpu", "dtype": "float32", "max_problems": 7, "max_new_tokens": 8}
        config |= {"task_name": "mmlu,gsm8k,sums", "processes": ranks}
        attempt = home.run("scripts.chat_eval", config, run=f"eval{ranks}", ranks=ranks)
        assert attempt.code == 0, attempt.log
        (event,) = attempt.events("eval")
        assert event["counts"] == {"mmlu": 7, "gsm8k": 3, "sums": 7}
        shown = [example for example in event["details"]["examples"] if example["task"] == "mmlu"]
        assert all(example["answer"] in "ABCD" for example in shown) and shown
        found.append((event["values"], event["details"]["intervals"]))
    assert found[0] == found[1]


def test_missing_data_and_unknown_names_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(empty_packages(tmp_path / "empty")))  # this machine may have the data
    home = Home(tmp_path)
    for name, reason, text in (
        ("mmlu", "data_error", "nanochat data get mmlu"),
        ("mmlo", "config_error", "nearest is 'mmlu'"),
    ):
        config = {"device": "cpu", "task_name": name}
        attempt = home.run("scripts.chat_eval", config, run=name)
        assert attempt.failure is not None and attempt.failure["reason"] == reason
        assert text in attempt.failure["message"]
