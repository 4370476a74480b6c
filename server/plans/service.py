"""Dry runs: the resolver of runs, then the planner."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.configurator import ConfigError
from nanochat.hardware import Gpu
from nanochat.planner.dry import DryRun, NotPlanned, dry_run, named_gpu
from nanochat_client.types import Plan, PlanCreate, ProblemItem
from server.problems import Invalid
from server.runs.resolve import Assembled, assemble, invalid, known_stage, problem_items
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
    except Invalid as error:
        if error.code in REFUSED:
            raise
        return Plan(stage=body.stage, preset=body.config, problems=error.errors)
    try:
        found = await asyncio.to_thread(_plan, got, gpus, base, body.target_vram_gb)
    except NotPlanned as error:
        problem = ProblemItem(pointer="/stage", message=str(error), nearest="base")
        raise invalid([problem], "not_planned") from None
    problems = problem_items(ConfigError(found.problems), OVERRIDES)
    return Plan(stage=body.stage, preset=body.config, problems=problems, **found.values)


def _named(body: PlanCreate) -> list[Gpu]:
    """So many GPUs of the kind that was named."""
    try:
        return [named_gpu(body.gpu or "")] * max(1, body.gpus or 1)
    except ConfigError as error:
        raise invalid(problem_items(error, ""), "unknown_gpu") from None


def _plan(got: Assembled, gpus: Sequence[Gpu], base: Path, target_gb: float | None) -> DryRun:
    gpu = min(gpus[: got.gpus], key=lambda one: one.memory_bytes, default=None)
    return dry_run(got.stage.name, got.values, gpus=got.gpus, gpu=gpu, base=base, target_gb=target_gb)
