"""What a chat task is: endless conversations to train on, and held-out problems to be scored by."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Content = str | list[dict[str, str]]
Conversation = list[dict[str, Any]]


@dataclass(frozen=True)
class Problem:
    """A question that no training conversation holds, its model answer, and what an answer is judged by."""

    question: str
    answer: Content
    expected: str


class Task(Protocol):
    """Train and test items are disjoint: other wordings, other words or other numbers."""

    name: str
    share: float
    """Part of a mixture, relative to the other tasks'."""

    def conversation(self, rng: random.Random) -> Conversation:
        """One conversation to train on."""

    def problems(self) -> Iterator[Problem]:
        """Every held-out problem in a fixed order."""

    def is_right(self, problem: Problem, text: str) -> bool:
        """Whether the assistant's `text` (after its last tool output) solves `problem`."""


def dialogue(question: str, answer: Content) -> Conversation:
    """One question and its answer as a conversation."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def shuffled(items: list[Problem], seed: int = 5) -> Iterator[Problem]:
    """`items` in an order that mixes wordings and contents."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return iter(order)
