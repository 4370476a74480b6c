"""Which checkpoint: by id, by selector, the newest of some stages, those that can be chatted with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select as sql_select
from sqlalchemy.ext.asyncio import AsyncSession

from server.ids import is_id
from server.models import Checkpoint, Run
from server.problems import NotFound


async def get(session: AsyncSession, checkpoint_id: str) -> tuple[Checkpoint, Run]:
    """The checkpoint and the run that made it. Raises NotFound."""
    checkpoint = await session.get(Checkpoint, checkpoint_id) if is_id(checkpoint_id) else None
    run = await session.get(Run, checkpoint.run_id) if checkpoint else None
    if checkpoint is None or run is None:
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
    return checkpoint, run


async def ids_of(session: AsyncSession, run_id: str) -> list[str]:
    """Every checkpoint of a run."""
    return list(await session.scalars(sql_select(Checkpoint.id).where(Checkpoint.run_id == run_id)))


async def select(session: AsyncSession, run_id: str, selector: str) -> Checkpoint | None:
    """`last`, `best:<metric>` (lowest) or `step:<n>` of a run; None when there is none."""
    query = sql_select(Checkpoint).where(Checkpoint.run_id == run_id).order_by(Checkpoint.step.desc())
    found = (await session.scalars(query)).all()
    kind, _, rest = selector.partition(":")
    if kind == "step":
        found = [row for row in found if str(row.step) == rest]
    if kind == "best":
        found = sorted(
            (row for row in found if row.metrics.get(rest) is not None), key=lambda row: row.metrics[rest]
        )
    return found[0] if found else None


async def newest(session: AsyncSession, stages: Sequence[str]) -> Checkpoint | None:
    """The newest checkpoint that any of `stages` made."""
    query = sql_select(Checkpoint).where(Checkpoint.stage.in_(stages))
    query = query.order_by(Checkpoint.created_at.desc(), Checkpoint.step.desc()).limit(1)
    return (await session.scalars(query)).one_or_none()


async def servable(session: AsyncSession) -> list[tuple[Checkpoint, Run]]:
    """Language models and the runs that made them, newest first."""
    query = sql_select(Checkpoint, Run).join(Run, Run.id == Checkpoint.run_id)
    query = query.where(Checkpoint.model_config_.is_not(None)).order_by(Checkpoint.created_at.desc())
    return [(checkpoint, run) for checkpoint, run in await session.execute(query)]
