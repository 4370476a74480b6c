"""Chat tasks. Every module in here that has `TASKS` adds those classes: a new task is one file.

task.py      what a task is: len, [i], evaluate, reward
datasets.py  where the rows of real data sets come from
registry.py  finds tasks by name
mixture.py   conversations to fine-tune on, of several tasks
"""

from __future__ import annotations

from nanochat.tasks.task import Content, Conversation, Example, Generator, Split, Task

__all__ = ["Content", "Conversation", "Example", "Generator", "Split", "Task"]
