"""chat_eval: letters and text, the same on one rank and on two, what is missing said, and ChatCORE."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from nanochat.evals.chat import CHAT_CORE, chat_core, summary
from nanochat.evals.chat import Score as ChatScore
from nanochat.tasks.registry import kinds
from tests.nanochat.tasks.test_datasets import ANSWER, empty_packages, questions, write_rows
from tests.nanochat.trainers import Home

EVAL: dict[str, Any] = {"device": "cpu", "dtype": "float32", "max_problems": 7, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    write_rows(home.base, "mmlu", questions(9))
    write_rows(home.base, "gsm8k", [{"question": f"how many are {i}?", "answer": ANSWER} for i in range(3)])
    assert home.train_tokenizer().code == 0
    config = home.base_config(num_iterations=2, max_seq_len=128, device_batch_size=1)
    assert home.run("scripts.base_train", config, run="parent").code == 0
    return home


def test_tasks_are_scored_alike_on_any_number_of_ranks(home: Home) -> None:
    found = []
    for ranks in (1, 2):
        config = {**EVAL, "temperature": 1.0, "num_samples": 2, "processes": ranks}
        config["task_name"] = "mmlu,gsm8k,sums"
        attempt = home.run("scripts.chat_eval", config, run=f"eval{ranks}", ranks=ranks)
        assert attempt.code == 0, attempt.log
        (event,) = attempt.events("eval")
        assert event["counts"] == {"mmlu": 7, "gsm8k": 3, "sums": 7}
        examples = event["details"]["examples"]
        letters = [example["answer"] for example in examples if example["task"] == "mmlu"]
        assert letters and all(letter in "ABCD" for letter in letters)
        found.append((event["values"], event["details"]["intervals"], sorted(map(str, examples))))
    assert found[0][:2] == found[1][:2]
    texts = [{text for text in examples if "'sums'" in text} for *_, examples in found]
    assert texts[0] & texts[1]  # not all are shown, and not the same ones


def test_results_are_an_event_metrics_and_a_file(home: Home) -> None:
    config = {**EVAL, "task_name": "mmlu,spellingbee,sums"}
    attempt = home.run("scripts.chat_eval", config, run="written")
    assert attempt.code == 0, attempt.log
    (event,) = attempt.events("eval")
    written = json.loads((home.base / "chat_eval" / "base_parent_000002.json").read_text())
    assert written["checkpoint"] == event["details"]["checkpoint"] == "base_checkpoints/parent/step_000002"
    mmlu = written["tasks"]["mmlu"]
    assert mmlu["centered"] == pytest.approx((mmlu["accuracy"] - 0.25) / 0.75) and mmlu["total"] == 7
    assert mmlu["interval"] == event["details"]["intervals"]["mmlu"]
    found = written["chat_core"]
    assert found["chat_core/tasks"] == 2 and "chat_core/metric" not in found  # sums is none of the six
    assert found["chat_core/partial"] == pytest.approx(
        (mmlu["centered"] + written["tasks"]["spellingbee"]["centered"]) / 2
    )
    (metric,) = attempt.events("metric")
    assert metric["values"].items() >= found.items() and "chat_eval/mmlu" in metric["values"]
    assert "mean of 2 of ChatCORE's 6 tasks" in attempt.log and "95 % interval" in attempt.log


def test_without_names_all_that_is_here_is_scored_and_the_rest_is_named(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(empty_packages(tmp_path / "empty")))  # this machine may have the data
    attempt = home.run("scripts.chat_eval", {**EVAL, "max_problems": 2}, run="everything")
    assert attempt.code == 0, attempt.log
    (event,) = attempt.events("eval")
    here = ("mmlu", "gsm8k", "spellingbee", "identity", "smalltalk", "spelling", "sums")
    assert set(event["values"]) == set(here)
    warned = "\n".join(event["message"] for event in attempt.events("warning"))
    for name in {"arc-easy", "arc-challenge", "humaneval", "hellaswag"} & set(kinds()):
        assert f"{name} is left out" in warned and f"nanochat data get {name}" in warned


def test_chat_core_is_the_mean_of_six_centred_accuracies() -> None:
    task = kinds()["mmlu"]
    rows = {name: {"centered": i / 10} for i, name in enumerate(CHAT_CORE)}
    assert chat_core({**rows, "sums": {"centered": 9.0}}) == {"chat_core/metric": pytest.approx(0.25)}
    del rows["gsm8k"]
    found = chat_core(rows)
    assert found == {"chat_core/partial": pytest.approx((0.1 + 0.2 + 0.4 + 0.5) / 5), "chat_core/tasks": 5.0}
    assert chat_core({"sums": {"centered": 0.5}}) == {}
    row = summary(task, ChatScore(40, 100))  # type: ignore[arg-type]
    low, high = row["interval"]
    assert row["centered"] == pytest.approx(0.2) and low < 0.4 < high


def test_missing_data_and_unknown_names_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(empty_packages(tmp_path / "empty")))  # this machine may have the data
    home = Home(tmp_path)
    for number, (name, reason, text) in enumerate(
        (
            ("mmlu", "data_error", "nanochat data get mmlu"),
            ("mmlo", "config_error", "nearest is 'mmlu'"),
            (" , ", "config_error", "there are arc-easy"),
        )
    ):
        attempt = home.run("scripts.chat_eval", {"device": "cpu", "task_name": name}, run=f"bad{number}")
        assert attempt.failure is not None and attempt.failure["reason"] == reason
        assert text in attempt.failure["message"]


def test_asked_to_stop_it_leaves_on_all_ranks(home: Home) -> None:
    config = {**EVAL, "task_name": "sums", "max_problems": -1, "max_new_tokens": 64, "processes": 2}
    started = home.start("scripts.chat_eval", config, run="stopped", ranks=2)
    started.until(lambda attempt: "chat_eval: base_checkpoints" in attempt.log)
    started.process.send_signal(signal.SIGTERM)
    started.wait()
    assert started.events("end")[-1]["status"] == "stopped", started.log
    assert not started.events("eval")
