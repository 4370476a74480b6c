"""Conversations to fine-tune on: drawn from tasks by their shares, and from JSONL files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from nanochat.configurator import ConfigError, nearest_name
from nanochat.errors import DataError
from nanochat.paths import find_artefact
from nanochat.stages import Problem as ConfigProblem
from nanochat.tasks import TASKS, Conversation, Task, reasoning


def parse(names: str, base: Path) -> tuple[list[Task], list[Path]]:
    """Tasks and JSONL files named in a comma-separated list. Raises ConfigError or DataError."""
    tasks, files = [], []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name in TASKS:
            tasks.append(TASKS[name])
        elif name.startswith(reasoning.PREFIX):
            tasks.append(reasoning.find(name))
        elif "/" in name or name.endswith(".jsonl"):
            try:
                files.append(find_artefact(name, base))
            except FileNotFoundError as error:
                raise DataError(f"task {error}") from None
        else:
            nearest = nearest_name(name, TASKS)
            hint = f"; the nearest is {nearest!r}" if nearest else f"; there are {', '.join(TASKS)}"
            raise ConfigError([ConfigProblem("/tasks", f"there is no task {name!r}{hint}", nearest)])
    if not tasks and not files:
        raise ConfigError([ConfigProblem("/tasks", f"no task is named; there are {', '.join(TASKS)}")])
    return tasks, files


def draw(
    tasks: Sequence[Task], files: Sequence[Path], count: int, seed: int, multi_turn: float = 0.0
) -> list[Conversation]:
    """`count` dialogues from the tasks by their shares, and those of the files. One seed, one list.

    `multi_turn`: the probability that a dialogue goes on with the next one in the same conversation.
    """
    rng = random.Random(seed)
    found = [conversation for file in files for conversation in read_jsonl(file)]
    if tasks:
        shares = [task.share for task in tasks]
        drawn = [task.conversation(rng) for task in rng.choices(tasks, shares, k=count)]
        found += _joined(drawn, multi_turn, rng)
    rng.shuffle(found)
    return found


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


def read_jsonl(file: Path) -> list[Conversation]:
    """Conversations of a file: a line is `{"messages": [...]}` or the list itself. Raises DataError."""
    found: list[Conversation] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {error}") from None
        messages = value.get("messages") if isinstance(value, dict) else value
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise DataError(f'{file}, line {number}: expected {{"messages": [{{"role", "content"}}, …]}}')
        found.append(messages)
    if not found:
        raise DataError(f"{file} holds no conversation")
    return found
