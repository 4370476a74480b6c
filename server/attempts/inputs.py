"""Which artefacts a run reads: chosen when it is claimed, so that the config on disk is exact.

The parent's checkpoint goes to the first input its stage fits; every other required input, and a run
without a parent, takes the newest compatible checkpoint there is. What the user named himself stays.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.stages import STAGES, Input
from nanochat_client.types import Blocked
from server.checkpoints import repository as checkpoints
from server.ids import is_id
from server.models import Checkpoint, Run
from server.runs.states import SUCCEEDED


async def filled(session: AsyncSession, run: Run) -> dict[str, Any] | Blocked:
    """The run's config with every input's path filled in, or what is missing."""
    config = dict(run.config)
    stage = STAGES[run.stage]
    parent = await session.get(Run, run.parent_id) if run.parent_id else None
    if parent is not None and parent.state != SUCCEEDED:
        return _missing(run, f"the parent run {parent.id} is {parent.state}, not succeeded")
    from_parent = fitting(run.stage, parent.stage) if parent else None
    for item in stage.inputs:
        if given := config.get(item.field):
            config[item.field] = await path_of(session, str(given))
        elif parent is not None and item is from_parent:
            chosen = await checkpoints.select(session, parent.id, run.parent_checkpoint)
            if chosen is None:
                return _missing(
                    run, f"the parent run {parent.id} has no checkpoint {run.parent_checkpoint!r}"
                )
            config[item.field] = chosen.path
        elif newest := await checkpoints.newest(session, item.stages):
            config[item.field] = newest.path
        elif item.required:
            makers = " or ".join(item.stages)
            return _missing(run, f"there is no {item.field} yet: run stage {makers} first")
    if "resume_from" in config:
        config["resume_from"] = await _resume_from(session, run)
    return config


def fitting(stage: str, parent_stage: str) -> Input | None:
    """The input of `stage` that takes what `parent_stage` makes."""
    return next((item for item in STAGES[stage].inputs if parent_stage in item.stages), None)


async def path_of(session: AsyncSession, given: str) -> str:
    """The path of a checkpoint that was named by its id; anything else is a path already."""
    found = await session.get(Checkpoint, given) if is_id(given) else None
    return found.path if found else given


async def _resume_from(session: AsyncSession, run: Run) -> str:
    """Where the user said (a retry: the old run's checkpoint), until the run has one of its own."""
    asked = str(run.config["resume_from"])
    if not asked or await checkpoints.select(session, run.id, "last") is not None:
        return "auto"
    return await path_of(session, asked)


def _missing(run: Run, message: str) -> Blocked:
    return Blocked(code="missing_input", message=message, asked={"stage": run.stage, "gpus": run.gpus})
