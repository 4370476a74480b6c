"""Any JSONL file of conversations as a task to train on. No line of it can be judged.

A line is `{"messages": [{"role", "content"}, …]}` or the list itself; roles and contents as in chat.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanochat.chat import ConversationError, turns
from nanochat.errors import DataError
from nanochat.paths import find_artefact
from nanochat.tasks.datasets import JsonLines
from nanochat.tasks.task import Conversation, Example, Split, Task


class ConversationFile(Task):
    """The conversations of a file in its order. Raises DataError for a file that holds none, or something
    else, and names the line."""

    judges = False

    def __init__(self, split: Split, base: Path, options: str = "") -> None:
        self.name = options
        super().__init__(split, base, options)
        if split == "test":
            raise DataError(f"{options}: a file of conversations is only trained on")
        try:
            self._lines = JsonLines(find_artefact(options, base))
        except FileNotFoundError as error:
            raise DataError(f"task {error}") from None
        if not len(self._lines):
            raise DataError(f"{self._lines.file} holds no conversation")
        for number in range(len(self._lines)):
            self[number]

    @classmethod
    def takes_options(cls) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> Example:
        where = f"{self._lines.file}, line {self._lines.lines[number]}"
        return Example(messages(self._lines[number], where))

    def evaluate(self, example: Example, text: str) -> bool:
        raise NotImplementedError(f"{self.name}: conversations have no right answer")


def messages(value: Any, where: str) -> Conversation:
    """The messages of a line, which have a rendering. Raises DataError."""
    found = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise DataError(f'{where}: expected {{"messages": [{{"role", "content"}}, …]}}')
    try:
        for _ in turns(found):
            pass
    except ConversationError as error:
        raise DataError(f"{where}: {error}") from None
    return found
