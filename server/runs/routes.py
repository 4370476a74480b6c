"""Runs over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from nanochat_client.types import Attempt, Page, ProblemItem, Run, RunCreate, RunPatch, RunState
from nanochat_client.types.runs import RunRetry
from server import models
from server.checkpoints import repository as checkpoints
from server.deps import Read, ServicesDep, Write
from server.runs import files, idempotency, repository, service
from server.runs.changes import announce
from server.runs.pages import Cursor, Limit, Text, decode, next_cursor
from server.runs.resolve import check_tags, check_text, invalid, known_stage
from server.runs.views import attempt_view, run_view

router = APIRouter(prefix="/runs", tags=["runs"])
IfMatch = Annotated[
    Annotated[str, Field(json_schema_extra={"pattern": service.IF_MATCH})] | None,
    Header(alias="If-Match", max_length=256, description="ETags of versions that may be changed, or *"),
]


def _answer(run: models.Run, response: Response, *, created: bool = False) -> Run:
    response.headers["etag"] = f'"{run.version}"'
    if created:
        response.headers["location"] = f"/runs/{run.id}"
    return run_view(run)


@router.post("", status_code=201)
async def create_run(
    body: RunCreate, response: Response, session: Write, services: ServicesDep, key: idempotency.Key = None
) -> Run:
    """Store a run; it starts by itself when a worker can take it (see `blocked`).

    422 also for what no schema says: a preset, a parent or a file that does not exist, settings that the
    stage does not know (GET /stages has their schema) or that do not go together.
    """
    run_id = service.fresh_id()
    if earlier := await idempotency.repeated(session, key, "POST /runs", body, run_id):
        return _answer(await repository.get(session, earlier), response, created=True)
    run = await service.create(session, body, run_id, services.settings.base_dir)
    announce(session, services.hub, run.id, services.reconciler.hint)
    return _answer(run, response, created=True)


@router.get("")
async def list_runs(
    session: Read,
    stage: Text = None,
    state: Annotated[list[RunState], Query()] = [],  # noqa: B006 - FastAPI copies it
    tag: Text = None,
    pipeline: Text = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Run]:
    """Runs that match all filters (of several states: any), newest first."""
    if stage is not None:
        known_stage(stage)
    for pointer, text in (("/tag", tag), ("/pipeline", pipeline)):
        check_text(text or "", pointer)
    query = repository.newest_first(
        dialect=session.get_bind().dialect.name,
        stage=stage,
        states=state,
        tag=tag,
        pipeline=pipeline,
        before=decode(cursor),
    )
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return Page(items=[run_view(run) for run in rows[:limit]], next_cursor=next_cursor(rows, limit))


@router.get("/{run_id}")
async def get_run(run_id: str, response: Response, session: Read) -> Run:
    return _answer(await repository.get(session, run_id), response)


@router.patch("/{run_id}")
async def patch_run(
    run_id: str,
    body: RunPatch,
    response: Response,
    session: Write,
    services: ServicesDep,
    if_match: IfMatch = None,
) -> Run:
    """Change what is about the run, not what it does. `If-Match` guards against overwriting: 412 when the run
    has another version now."""
    run = await repository.get(session, run_id, lock=True)
    service.check_version(run, if_match)
    check_tags(body.tags or [])
    check_text(body.notes or "", "/notes")
    changes = body.model_dump(exclude_unset=True)
    if nulls := [name for name, value in changes.items() if value is None]:
        raise invalid([ProblemItem(pointer=f"/{n}", message=f"{n} cannot be null") for n in nulls], "invalid")
    for name, value in changes.items():
        setattr(run, name, value)
    run.version += 1
    announce(session, services.hub, run.id, services.reconciler.hint)
    await session.flush()
    return _answer(run, response)


@router.delete("/{run_id}", status_code=204)
async def delete_run(run_id: str, services: ServicesDep, if_match: IfMatch = None) -> None:
    """Remove an ended run: its rows, logs, checkpoints, and its files below the base directory.

    409 while it has not ended; 412 when it has another version than `If-Match` says.
    """
    async with services.db.write() as session:
        run = await repository.get(session, run_id, lock=True)
        service.check_version(run, if_match)
        made = await checkpoints.ids_of(session, run_id)
        await service.delete(session, run)
        await idempotency.forget(session, run_id)
        announce(session, services.hub, run_id)
    # files go once the rows are gone for good: a crash in between leaves files, never rows without files
    settings = services.settings
    await asyncio.to_thread(files.remove, settings.base_dir, run_id, run.stage, settings.storage_url, made)


@router.post("/{run_id}/cancel", status_code=202)
async def cancel_run(run_id: str, response: Response, session: Write, services: ServicesDep) -> Run:
    """End the run; a running one saves a checkpoint first."""
    run = await repository.get(session, run_id, lock=True)
    await service.cancel(session, run)
    announce(session, services.hub, run_id, services.reconciler.hint)
    return _answer(run, response)


@router.post("/{run_id}/pause", status_code=202)
async def pause_run(run_id: str, response: Response, session: Write, services: ServicesDep) -> Run:
    """Save a checkpoint and wait until the run is resumed."""
    run = await repository.get(session, run_id, lock=True)
    await service.pause(session, run)
    announce(session, services.hub, run_id, services.reconciler.hint)
    return _answer(run, response)


@router.post("/{run_id}/resume", status_code=202)
async def resume_run(run_id: str, response: Response, session: Write, services: ServicesDep) -> Run:
    """Go on from the last checkpoint."""
    run = await repository.get(session, run_id, lock=True)
    await service.resume(session, run)
    announce(session, services.hub, run_id, services.reconciler.hint)
    return _answer(run, response)


@router.post("/{run_id}/retry", status_code=202)
async def retry_run(
    run_id: str,
    response: Response,
    session: Write,
    services: ServicesDep,
    body: RunRetry | None = None,
    key: idempotency.Key = None,
) -> Run:
    """A new run like this failed or cancelled one, from its last checkpoint or the one that the body names.

    The answer is the new run. 422 when the old one has no such checkpoint.
    """
    fresh, checkpoint = service.fresh_id(), (body or RunRetry()).checkpoint
    said = run_id if checkpoint == "last" else f"{run_id} {checkpoint}"
    if earlier := await idempotency.repeated(session, key, "POST /runs/retry", said, fresh):
        return _answer(await repository.get(session, earlier), response, created=True)
    old = await repository.get(session, run_id)
    run = await service.retry(session, old, fresh, checkpoint)
    announce(session, services.hub, run.id, services.reconciler.hint)
    return _answer(run, response, created=True)


@router.get("/{run_id}/attempts")
async def list_attempts(run_id: str, session: Read) -> Page[Attempt]:
    """Every try of the run, oldest first."""
    await repository.get(session, run_id)
    return Page(items=[attempt_view(attempt) for attempt in await repository.attempts(session, run_id)])
