"""The stage table: the one definition that flags, API checks, forms, argv and docs derive from.

`python -m nanochat.stages` prints it. A module of this package that has `STAGE` adds a row (docs/stages.md).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from nanochat.stages.spec import Input, Problem, Stage, StageConfig

#: the order of the table; rows that are not named come last
_ORDER = ("tokenizer", "base", "mid", "sft", "rl", "tok_eval", "base_eval", "base_loss", "chat_eval")


def _rows() -> Iterator[Stage]:
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("_"):
            row = getattr(import_module(f"{__name__}.{found.name}"), "STAGE", None)
            if isinstance(row, Stage):
                yield row


def _place(stage: Stage) -> tuple[int, str]:
    return (_ORDER.index(stage.name) if stage.name in _ORDER else len(_ORDER), stage.name)


STAGES: dict[str, Stage] = {stage.name: stage for stage in sorted(_rows(), key=_place)}

__all__ = ["STAGES", "Input", "Problem", "Stage", "StageConfig"]
