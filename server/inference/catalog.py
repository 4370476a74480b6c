"""Which models there are, and under which names.

    run:stage:step     one checkpoint, e.g. `my-run:sft:600`; spaces of the run's name are dashes
    run:stage:last     the newest of a run's stage, also `run:stage:latest` and `run:stage`
    alias              what a checkpoint was promoted to
    run                the furthest stage of the runs of that name
    pipeline           the same over the runs of a pipeline
    latest             the same over everything
    c0a1b2c3d4e        a checkpoint's id

`/` may stand for `:`. Of equal names the newest counts; aliases go before pipelines, pipelines before runs,
and names before ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.paths import resolve_under
from server.checkpoints.repository import servable
from server.checkpoints.views import model_name
from server.ids import is_id
from server.models import Alias, Checkpoint, Pipeline, Run

LATEST = "latest"
#: what stands for the newest step
NEWEST = ("last", LATEST)
#: better to talk to first
CHAT_STAGES = ("rl", "sft", "mid", "base")
_SEPARATOR = re.compile(r"[:/]")
Row = tuple[Checkpoint, Run]


@dataclass(frozen=True)
class Model:
    """A name under /v1/models and the checkpoint behind it; `canonical` is the checkpoint's own name."""

    name: str
    canonical: str
    checkpoint_id: str
    path: str
    created: int
    context: int

    def directory(self, base_dir: Path) -> Path:
        """Where its files are. Raises ValueError for a path that leads out of the base directory."""
        return resolve_under(base_dir, self.path)


async def models(session: AsyncSession) -> list[Model]:
    """`latest`, aliases, pipelines, then every checkpoint, newest first; of equal names the newest counts."""
    rows = await servable(session)
    pipelines = {p.id: _typed(p.name) for p in await session.scalars(select(Pipeline))}
    found: dict[str, Model] = {}
    by_pipeline: dict[str, list[Row]] = {}
    for checkpoint, run in rows:
        if run.pipeline_id in pipelines:
            by_pipeline.setdefault(pipelines[run.pipeline_id], []).append((checkpoint, run))
    if rows:
        found[LATEST] = _model(LATEST, best_to_chat(rows))
    by_id = {row[0].id: row for row in rows}
    for promoted in await session.scalars(select(Alias).order_by(Alias.created_at.desc())):
        if promoted.checkpoint_id in by_id:
            found.setdefault(promoted.name, _model(promoted.name, by_id[promoted.checkpoint_id]))
    for alias, of_pipeline in by_pipeline.items():
        found.setdefault(alias, _model(alias, best_to_chat(of_pipeline)))
    for row in rows:
        name = _name(row)
        found.setdefault(name, _model(name, row))
    return list(found.values())


async def find(session: AsyncSession, name: str) -> Model | None:
    """The model called `name`: one query or two, however many checkpoints there are."""
    parts = _SEPARATOR.split(name)
    if "\0" in name:  # PostgreSQL takes none
        return None
    if name == LATEST:
        row = await _best(session)
    elif len(parts) == 1:
        row = (
            await _first(session, _promoted_to(name))
            or await _best(session, _of_pipeline(name))
            or await _best(session, _called(name))
            or (await _first(session, Checkpoint.id == name) if is_id(name) else None)
        )
    elif len(parts) <= 3:
        row = await _of_stage(session, *parts)
    else:
        row = None
    return _model(name, row) if row else None


def best_to_chat(newest_first: Iterable[Row]) -> Row:
    """The newest of the furthest stage."""
    return min(newest_first, key=lambda row: _rank(row[0].stage))


def _rank(stage: str) -> int:
    return CHAT_STAGES.index(stage) if stage in CHAT_STAGES else len(CHAT_STAGES)


async def _of_stage(session: AsyncSession, run: str, stage: str, step: str = LATEST) -> Row | None:
    if step in NEWEST:
        return await _first(session, _called(run), Checkpoint.stage == stage)
    if not (step.isascii() and step.isdigit() and len(step) < 19):
        return None
    return await _first(session, _called(run), Checkpoint.stage == stage, Checkpoint.step == int(step))


async def _best(session: AsyncSession, *conditions: ColumnElement[bool]) -> Row | None:
    rank = case(
        {stage: _rank(stage) for stage in CHAT_STAGES}, value=Checkpoint.stage, else_=len(CHAT_STAGES)
    )
    return await _first(session, *conditions, order=(rank,))


async def _first(
    session: AsyncSession, *conditions: ColumnElement[bool], order: Sequence[ColumnElement[int]] = ()
) -> Row | None:
    """The newest checkpoint of a language model under `conditions`, or the first by `order`."""
    query = select(Checkpoint, Run).join(Run, Run.id == Checkpoint.run_id)
    query = query.where(Checkpoint.model_config_.is_not(None), *conditions)
    query = query.order_by(*order, Checkpoint.created_at.desc(), Checkpoint.step.desc()).limit(1)
    row = (await session.execute(query)).first()
    return (row[0], row[1]) if row else None


def _called(name: str) -> ColumnElement[bool]:
    return func.replace(Run.name, " ", "-") == _typed(name)


def _promoted_to(name: str) -> ColumnElement[bool]:
    return Checkpoint.id.in_(select(Alias.checkpoint_id).where(Alias.name == name))


def _of_pipeline(name: str) -> ColumnElement[bool]:
    called = select(Pipeline.id).where(func.replace(Pipeline.name, " ", "-") == _typed(name))
    return Run.pipeline_id.in_(called)


def _typed(name: str) -> str:
    return name.replace(" ", "-")


def _name(row: Row) -> str:
    checkpoint, run = row
    return model_name(run, checkpoint)


def _model(name: str, row: Row) -> Model:
    checkpoint, _ = row
    sizes = checkpoint.model_config_ or {}
    return Model(
        name=name,
        canonical=_name(row),
        checkpoint_id=checkpoint.id,
        path=checkpoint.path,
        created=int(checkpoint.created_at.timestamp()),
        context=int(sizes.get("sequence_len", 0)),
    )
