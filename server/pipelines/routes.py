"""Pipelines over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Page, Pipeline, PipelineCreate, PipelinePreset
from server import models
from server.deps import Read, ServicesDep, Write
from server.ids import new_id
from server.pipelines import presets, service
from server.runs import idempotency
from server.runs.changes import announce
from server.runs.pages import Cursor, Limit, decode, next_cursor

router = APIRouter(prefix="/pipelines", tags=["pipelines"])


async def _view(session: AsyncSession, pipeline: models.Pipeline) -> Pipeline:
    members = await service.runs_of(session, [pipeline.id])
    return await service.view(session, pipeline, members[pipeline.id])


@router.post("", status_code=201)
async def create_pipeline(
    body: PipelineCreate,
    response: Response,
    session: Write,
    services: ServicesDep,
    key: idempotency.Key = None,
) -> Pipeline:
    """A chain of runs: each waits until the one it starts from has succeeded.

    422 also for what no schema says: steps of one name, a parent that is no earlier step or does not fit, and
    all that POST /runs refuses.
    """
    pipeline_id = new_id("p")
    earlier = await idempotency.repeated(session, key, "POST /pipelines", body, pipeline_id)
    if earlier is None:
        for run in await service.create(session, body, pipeline_id, services.settings.base_dir):
            announce(session, services.hub, run.id, services.reconciler.hint)
    pipeline = await service.get(session, earlier or pipeline_id)
    response.headers["location"] = f"/pipelines/{pipeline.id}"
    return await _view(session, pipeline)


@router.get("")
async def list_pipelines(session: Read, cursor: Cursor = None, limit: Limit = 50) -> Page[Pipeline]:
    """Newest first."""
    table = models.Pipeline
    query = select(table).order_by(table.created_at.desc(), table.id.desc())
    if before := decode(cursor):
        same = and_(table.created_at == before[0], table.id < before[1])
        query = query.where(or_(table.created_at < before[0], same))
    rows = (await session.scalars(query.limit(limit + 1))).all()
    members = await service.runs_of(session, [row.id for row in rows[:limit]])
    items = [await service.view(session, row, members[row.id]) for row in rows[:limit]]
    return Page(items=items, next_cursor=next_cursor(rows, limit))


@router.get("/presets")
async def list_presets() -> Page[PipelinePreset]:
    """The pipelines that ship: POST /pipelines takes one by its name, or its steps, changed."""
    return Page(items=[PipelinePreset(name=name, steps=presets.find(name).steps) for name in presets.files()])


@router.get("/{pipeline_id}")
async def get_pipeline(pipeline_id: str, session: Read) -> Pipeline:
    return await _view(session, await service.get(session, pipeline_id))


@router.post("/{pipeline_id}/cancel", status_code=202)
async def cancel_pipeline(pipeline_id: str, session: Write, services: ServicesDep) -> Pipeline:
    """End every run of it that has not ended."""
    pipeline = await service.get(session, pipeline_id)
    for run in await service.cancel(session, pipeline):
        announce(session, services.hub, run.id, services.reconciler.hint)
    return await _view(session, pipeline)
