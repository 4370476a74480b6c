"""What a chat task is: examples by number, and a judge of answers.

    task = Sums("test", base)
    example = task[3]                      # a conversation that ends with the model answer
    task.evaluate(example, "#### 12")      # right or wrong

A task is made for one split. Train and test are disjoint: other wordings, other words, other numbers,
other rows of a data set.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from nanochat.configurator import ConfigError
from nanochat.stages import Problem

Content = str | list[dict[str, str]]
Conversation = list[dict[str, Any]]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the model answer, and what another answer is judged by."""

    messages: Conversation
    expected: str = ""
    letters: str = ""
    """The letters to choose from when the answer is one of them; empty: the answer is text."""

    @property
    def prompt(self) -> Conversation:
        """What a model is given: everything before the model answer."""
        return self.messages[:-1]

    @property
    def question(self) -> str:
        return str(self.messages[-2]["content"])

    @property
    def answer(self) -> Content:
        return self.messages[-1]["content"]


class Task(ABC):
    """One split of a task. `options` is what follows a colon in its name, as in rg:chain_sum."""

    name: str
    title: str = ""
    share: float = 1.0
    """Part of what is drawn for a mixture or for rl, relative to the other tasks'."""
    max_new_tokens: int = 64
    """Tokens that an answer needs at most."""
    chance: float = 0.0
    """Share of right answers of a model that knows nothing."""
    judges: bool = True
    """Whether answers can be judged; conversations without one right answer are only trained on."""

    def __init__(self, split: Split, base: Path, options: str = "") -> None:
        if options and not self.takes_options():
            raise wrong_option(f"task {self.name} takes no options: {options!r}")
        self.split, self.base, self.options = split, base, options

    @classmethod
    def takes_options(cls) -> bool:
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Examples of this split; of one made on demand, those of an epoch."""

    @abstractmethod
    def __getitem__(self, number: int) -> Example:
        """Example `number`, the same every time. Raises IndexError behind the last."""

    @abstractmethod
    def evaluate(self, example: Example, text: str) -> bool:
        """Whether the assistant's `text` (after its last tool output) is right."""

    def evaluate_all(self, examples: Sequence[Example], texts: Sequence[str]) -> list[bool]:
        """`evaluate` of each; a task whose judging is slow does many at once."""
        return [self.evaluate(example, text) for example, text in zip(examples, texts, strict=True)]

    def reward(self, example: Example, text: str) -> float:
        """How good `text` is for rl: 0 is wrong, 1 is right; a task may give parts."""
        return float(self.evaluate(example, text))

    def sample(self, rng: random.Random) -> Example:
        """An example drawn at random."""
        return self[rng.randrange(len(self))]

    def __iter__(self) -> Iterator[Example]:
        return (self[number] for number in range(len(self)))

    @cached_property
    def held_out(self) -> Task:
        """The test split of this task."""
        return self if self.split == "test" else type(self)("test", self.base, self.options)


class Generator(Task):
    """A task whose training examples are made on demand; the held-out ones are a fixed list."""

    epoch = 100_000
    """Training examples that have a number; `sample` makes others without end."""

    def __init__(self, split: Split, base: Path, options: str = "") -> None:
        super().__init__(split, base, options)
        self._tested = self.problems() if split == "test" else []

    @abstractmethod
    def sample(self, rng: random.Random) -> Example:
        """A fresh training example, never a held-out one."""

    @abstractmethod
    def problems(self) -> list[Example]:
        """Every held-out example in a fixed order."""

    def __len__(self) -> int:
        return len(self._tested) if self.split == "test" else self.epoch

    def __getitem__(self, number: int) -> Example:
        if self.split == "test":
            return self._tested[number]
        if not 0 <= number < self.epoch:
            raise IndexError(f"{self.name} has {self.epoch} training examples, no number {number}")
        return self.sample(random.Random(f"{self.name} {number}"))


def dialogue(question: str, answer: Content, expected: str | None = None) -> Example:
    """One question and its answer; judged by `expected`, else by what the answer says last."""
    if expected is None:
        expected = answer if isinstance(answer, str) else answer[-1]["text"]
    messages: Conversation = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Example(messages, expected)


def shuffled(items: list[Example], seed: int = 5) -> list[Example]:
    """`items` in an order that mixes wordings and contents."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return order


def wrong_option(message: str, nearest: str | None = None, pointer: str = "/tasks") -> ConfigError:
    return ConfigError([Problem(pointer, message, nearest)])
