"""Results of evaluations over HTTP: by the run that measured, by what was measured, by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select

from nanochat.report.scores import score_of
from nanochat_client import types
from nanochat_client.types import Page
from nanochat_client.types.wire import Storable
from server.deps import Read
from server.models import Evaluation, Run
from server.runs.pages import Cursor, Limit, Text, decode, next_cursor
from server.runs.resolve import check_text

router = APIRouter(tags=["evaluations"])


@router.get("/evaluations")
async def get_evaluations(
    session: Read,
    run: Annotated[Storable | None, Query(max_length=64, description="the run that measured")] = None,
    pipeline: Text = None,
    checkpoint: Annotated[Storable | None, Query(max_length=64, description="what was measured")] = None,
    stage: Annotated[Storable | None, Query(max_length=32, description="what made it")] = None,
    name: Annotated[Storable | None, Query(max_length=128)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[types.Evaluation]:
    """Results of evaluations that match all filters, newest first."""
    table = Evaluation
    query = select(table).order_by(table.created_at.desc(), table.id.desc())
    filters = (
        ("/run", run, table.run_id), ("/checkpoint", checkpoint, table.checkpoint_id),
        ("/stage", stage, table.stage), ("/name", name, table.name),
    )  # fmt: skip
    for pointer, text, column in filters:
        if text is not None:
            check_text(text, pointer)
            query = query.where(column == text)
    if pipeline is not None:
        check_text(pipeline, "/pipeline")
        query = query.join(Run, Run.id == table.run_id).where(Run.pipeline_id == pipeline)
    if before := decode(cursor):
        moment, last_id = before
        older = table.created_at < moment
        query = query.where(older | ((table.created_at == moment) & (table.id < last_id)))
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return Page(items=[evaluation_view(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit))


def evaluation_view(row: Evaluation) -> types.Evaluation:
    """The wire form of an evaluation row."""
    told = {"name": row.name, "values": row.values, "counts": row.counts, "details": row.details}
    score = score_of(told, row.stage or "")
    return types.Evaluation(
        id=row.id,
        run_id=row.run_id,
        checkpoint=row.checkpoint_id,
        stage=row.stage,
        step=row.step,
        name=row.name,
        values=row.values,
        counts=row.counts,
        intervals={task: list(pair) for task, pair in score.intervals.items()},
        totals=score.totals,
        details=row.details,
        created_at=row.created_at,
    )
