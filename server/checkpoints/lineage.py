"""From a checkpoint back to data, tokenizer, config and code: what each artefact says it was made from.

The trainer wrote that into the artefact, so it holds for what was really read, not for what was asked.
Not covered: parents that the service does not know (imported, deleted) end the way back; they are named.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Artefact, Lineage, LineageStep
from server.checkpoints import repository
from server.models import Checkpoint, Run

MAX_STEPS = 64


async def lineage(session: AsyncSession, checkpoint: Checkpoint) -> Lineage:
    """The checkpoint, its parents, and the tokenizer at the root; newest first."""
    steps: list[LineageStep] = []
    at: Checkpoint | None = checkpoint
    tokenizer: Artefact | None = None
    seen: set[str] = set()
    while at is not None and at.id not in seen and len(steps) < MAX_STEPS:
        seen.add(at.id)
        step, at = await _step(session, at)
        steps.append(step)
        tokenizer = step.tokenizer or tokenizer
    if tokenizer is not None and tokenizer.checkpoint not in (None, *seen):
        root = await session.get(Checkpoint, tokenizer.checkpoint)
        if root is not None:
            steps.append((await _step(session, root))[0])
    complete = bool(steps) and all(step.code and step.data for step in steps) and tokenizer is not None
    missing = steps[-1].parent if steps and steps[-1].parent and not steps[-1].parent.checkpoint else None
    return Lineage(checkpoint=checkpoint.id, steps=steps, missing=missing, complete=complete and not missing)


async def _step(session: AsyncSession, at: Checkpoint) -> tuple[LineageStep, Checkpoint | None]:
    """One artefact as a step of the lineage, and the checkpoint it was trained from."""
    run = await session.get(Run, at.run_id)
    origin = at.origin or {}
    parent, parent_row = await _artefact(session, origin.get("parent"))
    tokenizer, _ = await _artefact(session, origin.get("tokenizer"))
    if parent is None and at.origin is None and run is not None and run.parent_id:
        parent_row = await repository.select(session, run.parent_id, run.parent_checkpoint)
        if parent_row is not None:
            parent = Artefact(path=parent_row.path, sha256=parent_row.sha256, checkpoint=parent_row.id)
    step = LineageStep(
        checkpoint=at.id,
        run_id=at.run_id,
        run_name=run.name if run else "",
        stage=at.stage,
        step=at.step,
        path=at.path,
        sha256=at.sha256,
        preset=run.preset if run else None,
        config=dict(run.config) if run else {},
        data=_mapping(origin.get("corpus")),
        code=_mapping(origin.get("code")),
        tokenizer=tokenizer,
        parent=parent,
        created_at=at.created_at,
    )
    return step, parent_row


async def _artefact(session: AsyncSession, told: Any) -> tuple[Artefact | None, Checkpoint | None]:
    """What an origin refers to: by path and identity, and our row of it when we know it."""
    if not isinstance(told, dict) or not isinstance(told.get("path"), str):
        return None, None
    path, sha256 = told["path"], told.get("sha256")
    query = select(Checkpoint).where(Checkpoint.path == path).order_by(Checkpoint.created_at.desc())
    rows = (await session.scalars(query)).all()
    row = next((row for row in rows if not sha256 or row.sha256 == sha256), None)
    found = Artefact(path=path, sha256=str(sha256 or ""), checkpoint=row.id if row else None)
    return found, row


def _mapping(told: Any) -> dict[str, Any] | None:
    return told if isinstance(told, dict) else None
