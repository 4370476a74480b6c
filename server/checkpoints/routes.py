"""Checkpoints over HTTP: lists, one, and the files as a tar archive."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select

from nanochat_client import types
from nanochat_client.types import Page
from server.checkpoints import archive, files, repository
from server.checkpoints.lineage import lineage
from server.checkpoints.views import checkpoint_view
from server.deps import Read, ServicesDep, Write
from server.models import Alias, Checkpoint, Run, now
from server.problems import Conflict, NotFound
from server.runs import repository as runs
from server.runs.pages import Cursor, Limit, Text, decode, next_cursor
from server.runs.resolve import check_text

router = APIRouter(tags=["checkpoints"])


@router.get("/checkpoints")
async def list_checkpoints(
    session: Read,
    run: Text = None,
    stage: Text = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[types.Checkpoint]:
    """Checkpoints and tokenizers, newest first."""
    for pointer, text in (("/run", run), ("/stage", stage)):
        check_text(text or "", pointer)
    query = select(Checkpoint, Run).join(Run, Run.id == Checkpoint.run_id)
    if run is not None:
        query = query.where(Checkpoint.run_id == run)
    if stage is not None:
        query = query.where(Checkpoint.stage == stage)
    if before := decode(cursor):
        moment, last_id = before
        older = Checkpoint.created_at < moment
        query = query.where(older | ((Checkpoint.created_at == moment) & (Checkpoint.id < last_id)))
    query = query.order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc()).limit(limit + 1)
    rows = [(checkpoint, owner) for checkpoint, owner in await session.execute(query)]
    return Page(
        items=[checkpoint_view(owner, checkpoint) for checkpoint, owner in rows[:limit]],
        next_cursor=next_cursor([checkpoint for checkpoint, _ in rows], limit),
    )


@router.get("/runs/{run_id}/checkpoints")
async def run_checkpoints(run_id: str, session: Read) -> Page[types.Checkpoint]:
    """Checkpoints of one run, oldest step first."""
    run = await runs.get(session, run_id)
    query = select(Checkpoint).where(Checkpoint.run_id == run.id).order_by(Checkpoint.step)
    return Page(items=[checkpoint_view(run, row) for row in await session.scalars(query)])


@router.get("/checkpoints/{checkpoint_id}")
async def get_checkpoint(checkpoint_id: str, session: Read) -> types.Checkpoint:
    checkpoint, run = await repository.get(session, checkpoint_id)
    return checkpoint_view(run, checkpoint)


@router.get("/checkpoints/{checkpoint_id}/lineage")
async def checkpoint_lineage(checkpoint_id: str, session: Read) -> types.Lineage:
    """Where a checkpoint comes from: its parents back to the first, tokenizer, data, config and code."""
    checkpoint, _ = await repository.get(session, checkpoint_id)
    return await lineage(session, checkpoint)


@router.get(
    "/checkpoints/{checkpoint_id}/download", response_class=StreamingResponse, responses=archive.ANSWERS
)
async def download_checkpoint(
    checkpoint_id: str,
    session: Read,
    services: ServicesDep,
    wanted: archive.Wanted = None,
    condition: archive.Condition = None,
) -> Response:
    """The checkpoint's files as an uncompressed tar archive; `Range: bytes=N-` goes on with a part of it."""
    checkpoint, run = await repository.get(session, checkpoint_id)
    directory = await files.directory(services.settings, checkpoint.path)
    if directory is None:
        raise NotFound(f"the files of checkpoint {checkpoint_id} are not on this host")
    name = f"{run.id}_step_{checkpoint.step:06d}"
    return archive.answer(directory, name, checkpoint.sha256, wanted, condition)


@router.post("/checkpoints/{checkpoint_id}/promote")
async def promote_checkpoint(checkpoint_id: str, body: types.Promotion, session: Write) -> types.Checkpoint:
    """Give a language model a name of its own under /v1/models; a name in use moves over."""
    checkpoint, run = await repository.get(session, checkpoint_id)
    if checkpoint.model_config_ is None:
        raise Conflict(f"checkpoint {checkpoint_id} is no language model")
    await session.merge(Alias(name=body.alias, checkpoint_id=checkpoint.id, created_at=now()))
    return checkpoint_view(run, checkpoint)
