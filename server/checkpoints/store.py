"""What `checkpoint` and `eval` events leave in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.report.scores import stage_of_path
from server.ids import new_id
from server.models import Checkpoint, Evaluation, Run
from server.telemetry.lines import TrainerEvent, numbers, whole

MAX_PATH = 4096


async def store_checkpoint(session: AsyncSession, run: Run, event: TrainerEvent) -> None:
    """A checkpoint of the run: new, announced again with more metrics, or removed by the trainer."""
    data, step = event.data, event.step
    if data.get("removed") is True:  # by the trainer's keep_last
        await session.execute(delete(Checkpoint).where(Checkpoint.run_id == run.id, Checkpoint.step == step))
        return
    path, sha256, size = data.get("path"), data.get("sha256"), whole(data.get("bytes"))
    if step is None or not isinstance(path, str) or not isinstance(sha256, str) or size is None:
        return
    query = select(Checkpoint).where(Checkpoint.run_id == run.id, Checkpoint.step == step)
    row = (await session.scalars(query)).one_or_none()
    if row is None:
        row = Checkpoint(id=new_id("c"), run_id=run.id, stage=run.stage, step=step)
        session.add(row)
    row.path, row.sha256, row.bytes = path[:MAX_PATH], sha256[:64], size
    row.metrics = numbers(data.get("metrics"))
    row.model_config_ = _mapping(data.get("model"))
    row.origin = _mapping(data.get("origin"))
    await session.flush()


async def store_evaluation(session: AsyncSession, run: Run, event: TrainerEvent) -> None:
    """A result, tied to the checkpoint it is of: the one whose path it names, else the run's own."""
    data = event.data
    name = str(data.get("name", "eval"))[:128]
    query = select(Evaluation).where(
        Evaluation.run_id == run.id, Evaluation.name == name, Evaluation.step == event.step
    )
    row = (await session.scalars(query)).first()
    if row is None:
        row = Evaluation(id=new_id("e"), run_id=run.id, name=name, step=event.step)
        session.add(row)
    row.values = numbers(data.get("values"))
    counts = {key: whole(int(value)) for key, value in numbers(data.get("counts")).items()}
    row.counts = {key: value for key, value in counts.items() if value is not None}
    row.details = _mapping(data.get("details")) or {}
    path = row.details.get("checkpoint")
    measured = await _measured(session, run, event.step, path if isinstance(path, str) else "")
    row.checkpoint_id = measured.id if measured else None
    row.stage = measured.stage if measured else stage_of_path(str(path)) if path else run.stage
    await session.flush()


async def _measured(session: AsyncSession, run: Run, step: int | None, path: str) -> Checkpoint | None:
    """The checkpoint an evaluation is of; None for one that the service does not know."""
    query = select(Checkpoint).order_by(Checkpoint.created_at.desc()).limit(1)
    if path:
        return (await session.scalars(query.where(Checkpoint.path == path[:MAX_PATH]))).first()
    return (await session.scalars(query.where(Checkpoint.run_id == run.id, Checkpoint.step == step))).first()


def _mapping(told: Any) -> dict[str, Any] | None:
    return told if isinstance(told, dict) else None
