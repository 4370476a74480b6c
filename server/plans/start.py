"""How large the model is that a planned run would start from, as the database knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.planner.host import vocabulary
from nanochat.planner.shape import shape_of_base
from nanochat.stages.base import BaseConfig
from server.attempts.inputs import fitting, path_of
from server.checkpoints import repository as checkpoints
from server.models import Checkpoint, Run
from server.runs.resolve import Assembled

MAX_STEPS = 16


async def model(
    session: AsyncSession, got: Assembled, parent: Run | None, selector: str, base: Path
) -> Mapping[str, Any] | None:
    """The `model_config` of the checkpoint that the run would read; None when the database does not know it.

    The one the config names, else the parent's, else the newest, as when the run is claimed. A parent that
    has made none yet says by its own config what it will make.
    """
    inputs = got.stage.inputs
    if not inputs or got.stage.name == "base" or not got.stage.uses_gpu:
        return None
    item = (fitting(got.stage.name, parent.stage) if parent else None) or inputs[0]
    given = got.values.get(item.field)
    if isinstance(given, str) and given:
        path = await path_of(session, given)
        query = select(Checkpoint).where(Checkpoint.path == path).order_by(Checkpoint.created_at.desc())
        found = (await session.scalars(query.limit(1))).first()
    elif parent is not None:
        found = await checkpoints.select(session, parent.id, selector)
        if found is None:
            return await _promised(session, parent, base)
    else:
        found = await checkpoints.newest(session, item.stages)
    return found.model_config_ if found else None


async def _promised(session: AsyncSession, run: Run | None, base: Path) -> Mapping[str, Any] | None:
    """What a run that is not done yet will say of its model: the base run says it that it comes from."""
    for _ in range(MAX_STEPS):
        if run is None or run.stage == "base":
            break
        if (made := await checkpoints.select(session, run.id, "last")) is not None:
            return made.model_config_
        run = await session.get(Run, run.parent_id) if run.parent_id else None
    if run is None or run.stage != "base":
        return None
    cfg = BaseConfig(**run.config)
    tokenizer = await session.get(Run, run.parent_id) if run.parent_id else None
    trained = tokenizer.config.get("vocab_size") if tokenizer is not None else None
    size = trained if isinstance(trained, int) and not cfg.tokenizer else vocabulary(cfg, base)
    return shape_of_base(cfg, size).to_config()
