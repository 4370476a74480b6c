"""Conversations to fine-tune on, of several tasks, written as one line:

    smoltalk,mmlu,gsm8k,identity_conversations.jsonl*2,spelling[:200000]
    arc-easy,arc-challenge,gsm8k,smoltalk[:10000],spelling,sums

A data set and a file give every conversation once; `*2` gives them twice, `[:10000]` only the first ones.
Generators share `task_examples` fresh ones by their shares (`*2`: twice its share); with `[:300]` a
generator gives exactly its first 300 instead.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nanochat.errors import DataError
from nanochat.tasks.conversations import ConversationFile
from nanochat.tasks.registry import kinds, open_task
from nanochat.tasks.task import Conversation, Generator, Task, wrong_option

ENTRY = re.compile(r"(?P<name>.*?)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?(?:\*(?P<times>\d+))?")


@dataclass(frozen=True)
class Part:
    """One entry: the training split of a task, which of its examples, and how often."""

    task: Task
    span: slice | None = None
    times: int = 1

    @property
    def drawn(self) -> bool:
        """Fresh examples by share, not a list of numbered ones."""
        return isinstance(self.task, Generator) and self.span is None

    def numbers(self) -> list[int]:
        """The examples of a listed part."""
        everything = range(len(self.task))
        return [*(everything[self.span] if self.span else everything)] * self.times


def parse(names: str, base: Path) -> list[Part]:
    """The entries of a comma-separated list. Raises ConfigError or DataError."""
    parts = []
    for entry in filter(None, (part.strip() for part in names.split(","))):
        found = ENTRY.fullmatch(entry)
        assert found is not None  # `name` takes everything
        name, span, times = found["name"], None, int(found["times"] or 1)
        if found["start"] is not None:
            span = slice(*(int(number) if number else None for number in (found["start"], found["stop"])))
        is_file = "/" in name or name.endswith(".jsonl")
        task = ConversationFile("train", base, name) if is_file else open_task(name, "train", base)
        part = Part(task, span, times)
        if not times or not (part.drawn or part.numbers()):
            raise wrong_option(f"{entry!r} names no example: {task.name} has {len(task):,}")
        parts.append(part)
    if not parts:
        raise wrong_option(f"no task is named; there are {', '.join(kinds())}")
    return parts


class Drawn(Sequence[Conversation]):
    """Conversations in order; those of data sets are read when they are asked for."""

    def __init__(self, found: list[Conversation | tuple[Task, int]]) -> None:
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, number: Any) -> Any:
        one = self._found[number]
        return one[0][one[1]].messages if isinstance(one, tuple) else one

    def __iter__(self) -> Iterator[Conversation]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawn) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def draw(parts: Sequence[Part], count: int, seed: int, multi_turn: float = 0.0) -> Drawn:
    """Everything that is listed, and `count` dialogues of generators by their shares. One seed, one list.

    `multi_turn`: the probability that a generated dialogue goes on with the next one in the same
    conversation.
    """
    rng = random.Random(seed)
    found: list[Conversation | tuple[Task, int]] = [
        (part.task, number) for part in parts if not part.drawn for number in part.numbers()
    ]
    if generated := [part for part in parts if part.drawn]:
        shares = [part.task.share * part.times for part in generated]
        chosen = rng.choices([part.task for part in generated], shares, k=count)
        found += _joined([task.sample(rng).messages for task in chosen], multi_turn, rng)
    rng.shuffle(found)
    return Drawn(found)


def held_out(parts: Sequence[Part], each: int, warn: Callable[[str], None]) -> list[Conversation]:
    """The first `each` test conversations of every task; says which task has none here. Files have none."""
    found: list[Conversation] = []
    for task in dict.fromkeys(part.task for part in parts):
        if isinstance(task, ConversationFile):
            continue
        try:
            found += [example.messages for example in islice(task.held_out, each)]
        except DataError as error:
            warn(f"no validation on {task.name}: {error}")
    return found


def contents(parts: Sequence[Part]) -> str:
    """What is in a mixture, in one line; with what was left out of training because it is tested."""
    said = []
    for part in parts:
        size = "by its share" if part.drawn else f"{len(part.numbers()):,}"
        left_out = getattr(part.task, "left_out", 0)
        said.append(
            f"{part.task.name} {size}" + (f" ({left_out} test questions left out)" if left_out else "")
        )
    return "mixture: " + ", ".join(said)


def _joined(dialogues: list[Conversation], probability: float, rng: random.Random) -> list[Conversation]:
    """Neighbours put together with `probability` each, so that a model meets second questions too."""
    if probability <= 0:
        return dialogues
    found: list[Conversation] = []
    for dialogue in dialogues:
        if found and rng.random() < probability:
            found[-1] = [*found[-1], *dialogue]
        else:
            found.append(dialogue)
    return found
