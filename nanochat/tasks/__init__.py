"""Chat tasks by name. Each has endless training conversations and held-out problems."""

from __future__ import annotations

from nanochat.tasks.identity import Identity
from nanochat.tasks.smalltalk import Smalltalk
from nanochat.tasks.spelling import Spelling
from nanochat.tasks.sums import Sums
from nanochat.tasks.task import Content, Conversation, Problem, Task

TASKS: dict[str, Task] = {task.name: task for task in (Identity(), Smalltalk(), Spelling(), Sums())}

__all__ = ["TASKS", "Content", "Conversation", "Problem", "Task"]
