"""`python -m nanochat.bench_leak`: does the way questions are asked give away their answers?

Real questions, from the installed package or `tasks/`, to models that cannot know any: one with random
weights, and one as training initialises it, for which every letter is as likely as another. Each score
must lie where chance does, and no prediction may change when the gold labels are shuffled before the
questions are built.

Not covered: what a trained model has seen of the questions.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanochat.gpt import GPT
    from nanochat.tasks.choices import MultipleChoice
    from nanochat.tokenizer import Tokenizer

CONTEXT, VOCAB = 512, 4096
Z_999 = 3.29  # of eight 95 % intervals one misses chance in a third of the cases: refused is what 99.9 % miss
TASKS = "mmlu,arc-easy,arc-challenge,hellaswag"


@dataclass(frozen=True)
class Found:
    """What a model that knows nothing scored on `total` questions, and what chance gives on them."""

    right: int
    total: int
    chance: float
    """Mean of one over the number of choices."""
    changed: int
    """Predictions that are other ones when the gold labels are shuffled."""


def questions(name: str, base: Path) -> MultipleChoice:
    """The test split of a multiple-choice task. Raises DataError when its data is not here."""
    from nanochat.tasks.choices import MultipleChoice
    from nanochat.tasks.registry import open_task

    task = open_task(name, "test", base)
    assert isinstance(task, MultipleChoice), f"{name} is not multiple choice"
    return task


def with_other_labels(task: MultipleChoice, count: int) -> MultipleChoice:
    """The first `count` questions once more, their gold labels drawn anew."""
    rng, again = random.Random(1), copy.copy(task)
    rows = (task.rows[number] for number in range(count))
    again.rows = [{**row, "gold": rng.randrange(len(row["choices"]))} for row in rows]
    return again


def measure(task: MultipleChoice, count: int, model: GPT, tokenizer: Tokenizer, lanes: int = 32) -> Found:
    """The first `count` questions, asked twice."""
    import torch

    from nanochat.engine.make import Options, make_runner
    from nanochat.evals.answers import Answerer

    runner = make_runner(model, Options(lanes, threads=torch.get_num_threads(), cache_gib=0.5))
    answerer = Answerer(runner, tokenizer, lanes)
    told = answerer.letters(task, range(count))
    again = answerer.letters(with_other_labels(task, count), range(count))
    runner.close()
    examples = [task[number] for number in range(count)]
    return Found(
        right=sum(task.evaluate(example, letter) for example, letter in zip(examples, told, strict=True)),
        total=count,
        chance=sum(1 / len(example.letters) for example in examples) / count,
        changed=sum(one != other for one, other in zip(told, again, strict=True)),
    )


def models(depth: int, vocab: int, context: int) -> Iterator[tuple[str, GPT]]:
    """A model with random weights, and one as training begins with it: its head is zero."""
    import torch

    from nanochat.gpt import GPT, GPTConfig

    for name in ("random", "as initialised"):
        torch.manual_seed(0)
        model = GPT(GPTConfig.from_depth(depth, vocab, context), torch.float32)
        model.init_weights()
        if name == "random":
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(torch.randn_like(weight), alpha=0.02)
        yield name, model.eval()


def tokenizer_of(tasks: Sequence[MultipleChoice]) -> Tokenizer:
    """One that is trained on some questions of each task."""
    from nanochat.tokenizer import Tokenizer

    texts = [task[number].question for task in tasks for number in range(min(len(task), 1000))]
    return Tokenizer.train(iter(texts), VOCAB)


def main(argv: list[str] | None = None) -> int:
    """Exit 1 when a score is not within its interval of chance or a prediction changes."""
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_leak", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--problems", type=int, default=2000, help="of each task at most; -1: all")
    parser.add_argument("--depth", type=int, default=4)
    given = parser.parse_args(argv)
    from nanochat.evals.intervals import wilson
    from nanochat.paths import base_dir

    tasks = [questions(name, base_dir()) for name in given.tasks.split(",")]
    tokenizer = tokenizer_of(tasks)
    print(
        f"d{given.depth}, context {CONTEXT}; changed: predictions that are others with shuffled gold labels"
    )
    print("task           model            right     of  accuracy    95 % interval    chance  changed")
    wrong = 0
    for task in tasks:
        count = len(task) if given.problems < 0 else min(len(task), given.problems)
        for name, model in models(given.depth, tokenizer.vocab_size, CONTEXT):
            found = measure(task, count, model, tokenizer)
            low, high = wilson(found.right, found.total)
            lowest, highest = wilson(found.right, found.total, Z_999)
            wrong += not lowest <= found.chance <= highest or found.changed > 0
            print(
                f"{task.name:14} {name:15} {found.right:6,} {found.total:6,} "
                f"{100 * found.right / found.total:7.2f} % {100 * low:6.2f} … {100 * high:5.2f} % "
                f"{100 * found.chance:6.2f} %{found.changed:9}",
                flush=True,
            )
    print("no leak" if not wrong else f"{wrong} rows are not what a model that knows nothing may give")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
