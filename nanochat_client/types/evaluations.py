"""Results of evaluations, and the report made of them."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from nanochat_client.types.wire import Wire


class Evaluation(Wire):
    id: str
    run_id: str
    """The run that measured."""
    checkpoint: str | None = None
    """Id of what was measured; null when the service does not know it."""
    stage: str | None = None
    """Stage that made it."""
    step: int | None = None
    name: str
    values: dict[str, float]
    """By task: shares of right answers (0…1), bits per byte, bytes per token."""
    counts: dict[str, int] = {}
    intervals: dict[str, list[float]] = {}
    """Two numbers each: 95 % intervals of the shares."""
    totals: dict[str, float] = {}
    """Means of centred accuracies, e.g. CORE; of fewer tasks than it has the name says so."""
    details: dict[str, JsonValue] = {}
    created_at: datetime


class ReportCell(Wire):
    value: float
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    count: int | None = None
    """Problems."""


class ReportRow(Wire):
    title: str
    unit: str
    """accuracy (0…1), bits (per byte) or mean (of centred accuracies)."""
    cells: dict[str, ReportCell]
    """By the stage that made the model: base, mid, sft, rl."""


class Report(Wire):
    title: str
    runs: list[str]
    """Runs it is about."""
    missing: list[str] = []
    """Those that have not succeeded: nothing of them is in it."""
    rows: list[ReportRow]
    markdown: str
