"""What a chat task is: endless conversations to train on, and held-out problems to be scored by."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Practised(Protocol):
    """A task with problems of its own to practise on; those of others come from their conversations."""

    def practice(self, rng: random.Random) -> Problem:
        """A fresh problem to train on, never a held-out one."""


@runtime_checkable
class Graded(Protocol):
    """A task whose answers can be right in part."""

    def reward(self, problem: Problem, text: str) -> float:
        """How good `text` is: 0 is wrong, 1 is right."""


def practice(task: Task, rng: random.Random) -> Problem:
    """A fresh problem of any task to train on: a question, and what its answer is judged by."""
    if isinstance(task, Practised):
        return task.practice(rng)
    question, answer = task.conversation(rng)[:2]
    content: Content = answer["content"]
    expected = content if isinstance(content, str) else content[-1]["text"]
    return Problem(question["content"], content, expected)


def reward(task: Task, problem: Problem, text: str) -> float:
    """How good `text` is as an answer: what the task says, else 1 for a right one and 0 for others."""
    if isinstance(task, Graded):
        return task.reward(problem, text)
    return float(task.is_right(problem, text))


def dialogue(question: str, answer: Content) -> Conversation:
    """One question and its answer as a conversation."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def shuffled(items: list[Problem], seed: int = 5) -> Iterator[Problem]:
    """`items` in an order that mixes wordings and contents."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return iter(order)
