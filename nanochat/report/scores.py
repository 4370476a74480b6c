"""Results of evaluations, and the table that puts the models of a chain side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanochat.paths import STAGE_DIRS

MODELS = ("base", "mid", "sft", "rl")
DASH = "–"


@dataclass(frozen=True)
class Score:
    """What one evaluation measured of one model: `values` by task, with counts and 95 % intervals.

    `name` is the evaluation's (chat_eval, base_eval, base_loss …), `stage` made the model. `totals` are
    numbers about all tasks together, by title, e.g. {"CORE": 0.21}.
    """

    name: str
    stage: str
    values: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    checkpoint: str = ""

    @property
    def family(self) -> str:
        """The evaluation without what follows a slash: `chat_eval/before` is a `chat_eval`."""
        return self.name.partition("/")[0]


def stage_of_path(path: str) -> str | None:
    """The stage that wrote the artefact at `path` below the base directory; None for a foreign one."""
    first = path.partition("/")[0]
    return next((stage for stage, directory in STAGE_DIRS.items() if directory == first), None)


def score_of(event: Mapping[str, Any], stage: str) -> Score:
    """The score in the fields of an `eval` event. `stage`: what made the model, if the path does not say."""
    details = event.get("details")
    details = details if isinstance(details, dict) else {}
    checkpoint = details.get("checkpoint")
    checkpoint = checkpoint if isinstance(checkpoint, str) else ""
    intervals = details.get("intervals")
    values = _numbers(event.get("values"))
    return Score(
        name=str(event.get("name", "eval")),
        stage=stage_of_path(checkpoint) or stage,
        values={task: value for task, value in values.items() if task not in ("CORE", "ChatCORE")},
        counts={task: int(count) for task, count in _numbers(event.get("counts")).items()},
        intervals=_intervals(intervals) if isinstance(intervals, dict) else {},
        totals=_totals(details),
        checkpoint=checkpoint,
    )


def _totals(details: Mapping[str, Any]) -> dict[str, float]:
    """Means of centred accuracies: of all tasks under their own name, of fewer with how many they were."""
    found: dict[str, float] = {}
    for key, title in (("core", "CORE"), ("chat_core", "ChatCORE")):
        told = _numbers(details.get(key))
        if f"{key}/metric" in told:
            found[title] = told[f"{key}/metric"]
        elif f"{key}/partial" in told:
            count = int(told.get(f"{key}/tasks", 0))
            found[f"{title}, {count} of its tasks"] = told[f"{key}/partial"]
    return found


def _numbers(given: Any) -> dict[str, float]:
    if not isinstance(given, dict):
        return {}
    return {
        str(key): float(value)
        for key, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _intervals(given: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    found = {}
    for task, pair in given.items():
        numbers = [n for n in pair if isinstance(n, int | float)] if isinstance(pair, list | tuple) else []
        if len(numbers) == 2:
            found[str(task)] = (float(numbers[0]), float(numbers[1]))
    return found


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Cell:
    """One number of one model, with its 95 % interval and the number of problems where there are such."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure of every model that has it, by stage."""

    title: str
    unit: str
    """accuracy (0…1), bits (per byte) or mean (of centred accuracies)."""
    cells: dict[str, Cell]


#: evaluations whose tasks are too many for the table; their total stands there instead
_ONLY_TOTALS = ("base_eval", "core")
_ORDER = ("base_loss", "tok_eval", "base_eval", "core", "chat_eval", "rl")


def table(scores: Sequence[Score]) -> list[Row]:
    """A row for every measure, evaluations in a fixed order. Of two scores of one model the later counts."""
    cells: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for score in sorted(scores, key=lambda score: _rank(score.family)):
        if score.stage not in MODELS:
            continue
        for title, unit, cell in _cells(score):
            cells.setdefault((score.family, title, unit), {})[score.stage] = cell
    return [Row(title, unit, found) for (_, title, unit), found in cells.items()]


def _rank(family: str) -> int:
    return _ORDER.index(family) if family in _ORDER else len(_ORDER)


def _cells(score: Score) -> list[tuple[str, str, Cell]]:
    found = []
    if score.family not in _ONLY_TOTALS:
        for task, value in score.values.items():
            low, high = score.intervals.get(task, (None, None))
            if score.family == "base_loss":
                found.append((f"bits per byte, {task}", "bits", Cell(value)))
            else:
                found.append((task, "accuracy", Cell(value, low, high, score.counts.get(task))))
    found += [(title, "mean", Cell(value)) for title, value in score.totals.items()]
    return found


def table_markdown(rows: Sequence[Row]) -> str:
    """The table with a column for each of BASE, MID, SFT and RL."""
    if not rows:
        return "No evaluation has been run yet.\n"
    lines = [
        "| measure | " + " | ".join(stage.upper() for stage in MODELS) + " |",
        "|---|" + "---:|" * len(MODELS),
    ]
    for row in rows:
        counts = {cell.count for cell in row.cells.values() if cell.count}
        problems = f" ({counts.pop():,} problems)" if len(counts) == 1 else ""
        shown = (cell_text(row.unit, row.cells.get(stage)) for stage in MODELS)
        lines.append(f"| {row.title}{problems} | " + " | ".join(shown) + " |")
    if any(cell.low is not None for row in rows for cell in row.cells.values()):
        lines += ["", "In brackets: 95 % intervals."]
    return "\n".join(lines) + "\n"


def cell_text(unit: str, cell: Cell | None) -> str:
    """A cell as people read it: `62.5 % (54–70)`, `1.2345`, or a dash."""
    if cell is None:
        return DASH
    if unit != "accuracy":
        return f"{cell.value:.4f}"
    text = f"{100 * cell.value:.1f} %"
    if cell.low is not None and cell.high is not None:
        text += f" ({100 * cell.low:.0f}{DASH}{100 * cell.high:.0f})"
    return text
