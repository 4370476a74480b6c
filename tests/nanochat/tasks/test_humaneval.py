"""HumanEval: answers in every shape that models give, and real problems where the data is here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.configurator import ConfigError
from nanochat.errors import DataError
from nanochat.sandbox.programs import Unprotected
from nanochat.tasks.datasets import local_file, source
from nanochat.tasks.humaneval import HumanEval, code_of
from nanochat.tasks.registry import datasets, open_task

PROMPT = (
    "import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(side: float) -> float:\n"
    '    """ Half the area of a square.\n    >>> area(2)\n    2.0\n    """\n'
)
BODY = "    return half(math.pow(side, 2))\n"
TEST = (
    "\n\nMETADATA = {'author': 'us'}\n\n\ndef check(candidate):\n"
    "    assert candidate(2) == half(4)\n    assert abs(candidate(3) - 4.5) < 1e-6\n"
)
ROW = {
    "task_id": "Own/0", "prompt": PROMPT, "canonical_solution": BODY, "test": TEST, "entry_point": "area",
}  # fmt: skip


def write_row(base: Path) -> None:
    file = local_file("humaneval", base)
    file.parent.mkdir()
    file.write_text(json.dumps(ROW) + "\n")


@pytest.fixture
def task(tmp_path: Path) -> HumanEval:
    write_row(tmp_path)
    try:
        return HumanEval("test", tmp_path)
    except DataError as error:
        pytest.skip(str(error))


WHOLE = "def area(side):\n    return side * side / 2"
RIGHT = [
    PROMPT + BODY,
    BODY,
    WHOLE,
    f"```python\n{WHOLE}\n```",
    f"Sure!\n\n```\n{WHOLE}\n```\nIt squares.",
    f"```python\n{PROMPT}{BODY}```",
    f"```py\n{BODY}```",
    f"```python\n{WHOLE}\n",
    f"  ```python\n{WHOLE}\n  ```",
    f"```python\n{WHOLE}\n```\n```python\nraise 1\n```",
    f"{WHOLE}\n\nif __name__ == '__main__':\n    input()",
    "from numbers import Real\n" + WHOLE,
]
WRONG = [
    "",
    "    pass",
    "I cannot do that.",
    "```python\n```",
    "def area(side):\n    return side",
    "    return 2.0",
    f"It is:\n{WHOLE}",
    "    exit()",
    "    import os; os._exit(0)",
    f"```python\nimport nowhere\n{WHOLE}\n```",
    "def other(side):\n    return side * side / 2",
    "    print('passed')",
    "    while True:\n        exit()",
]


def test_answers_in_every_shape_are_judged(task: HumanEval) -> None:
    example = task[0]
    assert (len(task), example.question, example.answer) == (1, PROMPT, PROMPT + BODY)
    texts = RIGHT + WRONG
    verdicts = task.evaluate_all([example] * len(texts), texts)
    assert [text for text, right in zip(RIGHT, verdicts, strict=False) if not right] == []
    assert [text for text, right in zip(WRONG, verdicts[len(RIGHT) :], strict=True) if right] == []
    assert task.evaluate(example, BODY)
    assert task.reward(example, "    pass") == 0.0


def test_real_problems_are_solved_by_their_authors_and_by_nobody_else(tmp_path: Path) -> None:
    if not source(datasets()["humaneval"], tmp_path):
        pytest.skip("the data is not here: `nanochat data list` says how to get it")
    real = HumanEval("test", tmp_path)
    assert len(real) == 164
    few = [real[number] for number in range(6)]
    texts = [*(str(example.answer) for example in few), *("    pass" for _ in few)]
    assert real.evaluate_all(few + few, texts) == [True] * 6 + [False] * 6


def test_code_is_taken_as_it_stands() -> None:
    assert code_of("    return 1\n") == "    return 1\n"
    assert code_of("a\n```python\n    x = '``'\n```\nb") == "    x = '``'"
    assert code_of("```\nx\n\ny") == "x\n\ny"


def test_it_only_scores_and_only_behind_walls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no training split"):
        open_task("humaneval", "train", tmp_path)

    def refused() -> tuple[str, ...]:
        raise Unprotected("programs that a model wrote are not run here")

    write_row(tmp_path)
    monkeypatch.setattr("nanochat.tasks.humaneval.protection", refused)
    with pytest.raises(
        DataError, match="humaneval cannot be scored: programs that a model wrote are not run here"
    ):
        open_task("humaneval", "test", tmp_path)
