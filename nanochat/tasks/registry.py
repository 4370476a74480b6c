"""Tasks by name. A module of this package that has `TASKS`, a tuple of Task classes, adds them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

import nanochat.tasks
from nanochat.configurator import nearest_name
from nanochat.tasks.datasets import Dataset, DatasetTask
from nanochat.tasks.task import Split, Task, wrong_option


def kinds() -> dict[str, type[Task]]:
    """Every task there is, by name."""
    modules = (
        import_module(f"nanochat.tasks.{found.name}")
        for found in pkgutil.iter_modules(nanochat.tasks.__path__)
    )
    return {kind.name: kind for module in modules for kind in getattr(module, "TASKS", ())}


def open_task(name: str, split: Split, base: Path, pointer: str = "/tasks") -> Task:
    """The task `name` or `name:options`. Raises ConfigError or, for missing data, DataError."""
    known = kinds()
    kind, _, options = name.partition(":")
    if kind in known:
        return known[kind](split, base, options)
    nearest = nearest_name(kind, known)
    hint = f"; the nearest is {nearest!r}" if nearest else f"; there are {', '.join(known)}"
    raise wrong_option(f"there is no task {name!r}{hint}", nearest, pointer)


def datasets() -> dict[str, Dataset]:
    """The data sets of all tasks, by name."""
    return {
        data.name: data
        for kind in kinds().values()
        if issubclass(kind, DatasetTask)
        for data in kind.splits.values()
    }
