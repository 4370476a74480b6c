"""Dry runs: the resolver of runs, then the planner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.configurator import ConfigError
from nanochat.hardware import Gpu
from nanochat.planner.dry import DryRun, dry_run, named_gpu
from nanochat_client.types import Plan, PlanCreate
from server.plans import start
from server.problems import Invalid
from server.runs.resolve import Assembled, assemble, invalid, known_stage, problem_items
from server.runs.restart import check_selector
from server.runs.service import parent_of
from server.workers.repository import best_gpus

#: what a dry run cannot go on from; everything else is among its problems
REFUSED = ("unknown_stage", "unknown_preset", "invalid_preset")
OVERRIDES = "/overrides"


async def plan(session: AsyncSession, body: PlanCreate, base: Path) -> Plan:
    """What a run of `body` would need. Raises Invalid for a stage, preset or GPU that does not exist."""
    known_stage(body.stage)
    gpus = _named(body) if body.gpu is not None else await best_gpus(session)
    try:
        got = assemble(
            body.stage, body.config, body.overrides, body.gpus,
            base=base, offered=gpus, at="", overrides_at=OVERRIDES,
        )  # fmt: skip
        check_selector(body.checkpoint, "/checkpoint")
        parent = await parent_of(session, body.stage, body.parent, body.checkpoint)
    except Invalid as error:
        if error.code in REFUSED:
            raise
        return Plan(stage=body.stage, preset=body.config, problems=error.errors)
    model = await start.model(session, got, parent, body.checkpoint, base)
    found = await asyncio.to_thread(_plan, got, gpus, base, body.target_vram_gb, model)
    problems = problem_items(ConfigError(found.problems), OVERRIDES)
    return Plan(stage=body.stage, preset=body.config, problems=problems, **found.values)


def _named(body: PlanCreate) -> list[Gpu]:
    """So many GPUs of the kind that was named."""
    try:
        return [named_gpu(body.gpu or "")] * max(1, body.gpus or 1)
    except ConfigError as error:
        raise invalid(problem_items(error, ""), "unknown_gpu") from None


def _plan(
    got: Assembled,
    gpus: Sequence[Gpu],
    base: Path,
    target_gb: float | None,
    model: Mapping[str, Any] | None,
) -> DryRun:
    gpu = min(gpus[: got.gpus], key=lambda one: one.memory_bytes, default=None)
    return dry_run(
        got.stage.name, got.values, gpus=got.gpus, gpu=gpu, base=base, target_gb=target_gb, model=model
    )
