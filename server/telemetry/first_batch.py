"""A run's first batch, from the columns that the trainer wrote down (nanochat/train/first_batch.py)."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from nanochat.stages import STAGES
from nanochat.stages.training import OptimizerConfig
from nanochat_client.types import BatchRow, BatchToken, FirstBatch
from server.models import Run
from server.problems import NotFound
from server.runs.states import TERMINAL
from server.telemetry.repository import StoredEvent


def view(told: StoredEvent) -> FirstBatch:
    """Raises NotFound for an event that nobody can read."""
    try:
        rows = [_row(row) for row in told.data["rows"]]
        return FirstBatch(
            step=told.step or 0, attempt=told.attempt, t=told.t, size=told.data["batch"], rows=rows
        )
    except (ValidationError, LookupError, TypeError, ValueError):
        raise NotFound("what the trainer told of its first batch cannot be read") from None


def _row(row: dict[str, Any]) -> BatchRow:
    special = set(row["special"])
    tokens = [
        BatchToken(text=text, ids=ids, counts=counts, special=place in special)
        for place, (text, ids, counts) in enumerate(zip(row["text"], row["ids"], row["counts"], strict=True))
    ]
    about = {name: row[name] for name in ("reward", "advantage") if name in row}
    return BatchRow(length=row["length"], tokens=tokens, **about)


def missing(run: Run) -> NotFound:
    """Why the run has none."""
    if run.stage not in STAGES or not issubclass(STAGES[run.stage].config, OptimizerConfig):
        why = f"stage {run.stage!r} does not train in batches"
    elif run.state in TERMINAL:
        why = "it ended before its first step, or was trained by an older version"
    else:
        why = "its trainer tells it right before the first step: ask again then"
    return NotFound(f"run {run.id} has no first batch: {why}", code="no_first_batch")
