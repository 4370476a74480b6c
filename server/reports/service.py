"""The report of a run and those around it, out of the database.

Of a run in a pipeline: the whole pipeline. Of any other: the run, what it starts from, back to the first,
and the evaluations of these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.report import Section, report_markdown, table
from nanochat.report.scores import score_of
from nanochat.report.section import all_scores, is_told, order
from nanochat.stages import STAGES
from nanochat_client import types
from server.models import Attempt, Checkpoint, Evaluation, Event, Run
from server.runs.states import SUCCEEDED
from server.telemetry import series

MAX_RUNS = 200
FIRST_EVENTS = 50


async def around(session: AsyncSession, run: Run) -> list[Run]:
    """The runs a report of `run` is about, oldest first."""
    if run.pipeline_id is not None:
        query = select(Run).where(Run.pipeline_id == run.pipeline_id)
        return list(await session.scalars(query.order_by(Run.created_at, Run.id).limit(MAX_RUNS)))
    chain = {run.id: run}
    at: Run | None = run
    while at is not None and at.parent_id and at.parent_id not in chain and len(chain) < MAX_RUNS:
        at = await session.get(Run, at.parent_id)
        if at is not None:
            chain[at.id] = at
    judging = [stage.name for stage in STAGES.values() if not stage.makes_checkpoints]
    query = select(Run).where(Run.parent_id.in_(chain), Run.stage.in_(judging))
    for found in await session.scalars(query.order_by(Run.created_at, Run.id).limit(MAX_RUNS)):
        chain.setdefault(found.id, found)
    return sorted(chain.values(), key=lambda run: (run.created_at, run.id))


async def report(session: AsyncSession, title: str, runs: Sequence[Run]) -> types.Report:
    """Sections of the runs that succeeded, and the table of their scores."""
    done = [run for run in runs if run.state == SUCCEEDED]
    sections = sorted(await _sections(session, done), key=order)
    rows = [
        types.ReportRow(
            title=row.title,
            unit=row.unit,
            cells={
                stage: types.ReportCell(value=cell.value, low=cell.low, high=cell.high, count=cell.count)
                for stage, cell in row.cells.items()
            },
        )
        for row in table(all_scores(sections))
    ]
    return types.Report(
        title=title,
        runs=[run.id for run in runs],
        missing=[run.id for run in runs if run.state != SUCCEEDED],
        rows=rows,
        markdown=report_markdown(title, sections),
    )


async def _sections(session: AsyncSession, runs: Sequence[Run]) -> list[Section]:
    ids = [run.id for run in runs]
    evaluations: dict[str, list[Evaluation]] = defaultdict(list)
    query = (
        select(Evaluation).where(Evaluation.run_id.in_(ids)).order_by(Evaluation.created_at, Evaluation.id)
    )
    for row in await session.scalars(query):
        evaluations[row.run_id].append(row)
    made: dict[str, Checkpoint] = {}
    last = select(Checkpoint).where(Checkpoint.run_id.in_(ids)).order_by(Checkpoint.step)
    for checkpoint in await session.scalars(last):
        made[checkpoint.run_id] = checkpoint
    return [await _section(session, run, evaluations[run.id], made.get(run.id)) for run in runs]


async def _section(
    session: AsyncSession, run: Run, evaluations: Sequence[Evaluation], made: Checkpoint | None
) -> Section:
    warned = (
        select(Event.data)
        .where(Event.run_id == run.id, Event.kind == "warning")
        .order_by(Event.seq)
        .limit(20)
    )
    attempts = await session.scalars(select(Attempt).where(Attempt.run_id == run.id))
    seconds = sum(
        (a.ended_at - a.started_at).total_seconds() for a in attempts if a.started_at and a.ended_at
    )
    scores = [
        score_of(
            {"name": e.name, "values": e.values, "counts": e.counts, "details": e.details}, e.stage or ""
        )
        for e in evaluations
    ]
    first = await _first_values(session, run)
    return Section(
        stage=run.stage,
        run=run.name,
        run_id=run.id,
        began=run.started_at.isoformat() if run.started_at else "",
        seconds=seconds,
        step=run.step,
        config=_with_parent(run, made),
        metrics={
            name: (first.get(name), value) for name, value in sorted(run.summary.items()) if is_told(name)
        },
        scores=scores,
        checkpoint=made.path if made else scores[-1].checkpoint if scores else "",
        model=dict(made.model_config_ or {}) if made else {},
        peak_bytes=run.peak_bytes,
        warnings=[str(data.get("message", "")) for data in await session.scalars(warned)],
        code=dict((made.origin or {}).get("code") or {}) if made else {},
    )


async def _first_values(session: AsyncSession, run: Run) -> dict[str, float]:
    """The first value of every metric among the run's first events."""
    found: dict[str, float] = {}
    for _, event in await series.items(session, run.id, 0, FIRST_EVENTS):
        for name, value in event["values"].items():
            if value is not None:
                found.setdefault(name, value)
    return found


def _with_parent(run: Run, made: Checkpoint | None) -> dict[str, Any]:
    """The run's config, and in it the checkpoint it really started from."""
    parent = ((made.origin if made else None) or {}).get("parent")
    inputs = STAGES[run.stage].inputs
    if not inputs or not isinstance(parent, dict):
        return dict(run.config)
    return {**run.config, inputs[0].field: str(parent.get("path", ""))}
