"""Reads and guarded writes of the table `runs`. Flushes, never commits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Select, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import RunState
from server.ids import is_id
from server.models import Attempt, Run, now
from server.problems import NotFound
from server.runs.states import QUEUED, TERMINAL, sources
from server.webhooks import outbox


async def get(session: AsyncSession, run_id: str, *, lock: bool = False) -> Run:
    """The run; locked against other writers until the transaction ends if asked. Raises NotFound."""
    run = None
    if is_id(run_id):
        run = await session.get(Run, run_id, with_for_update=lock or None, populate_existing=lock)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}: GET /runs lists them")
    return run


async def move(session: AsyncSession, run_id: str, target: RunState, **values: Any) -> bool:
    """Bring the run to `target` if the MOVES table allows it from where the run is now.

    One guarded UPDATE: False means that somebody else moved it first, and the stored state stands.
    Sets `ended_at` with a terminal state and clears `blocked` on leaving the queue.
    """
    if target in TERMINAL:
        values.setdefault("ended_at", now())
    if target != QUEUED:
        values.setdefault("blocked", None)
    statement = (
        update(Run)
        .where(Run.id == run_id, Run.state.in_(sources(target)))
        .values(state=target, version=Run.version + 1, **values)
        .execution_options(synchronize_session=False)
    )
    moved = cast(CursorResult[Any], await session.execute(statement)).rowcount == 1
    run = await session.get(Run, run_id, populate_existing=True)
    if moved and run is not None:
        await outbox.run_moved(session, run)
    return moved


async def in_states(session: AsyncSession, states: Sequence[RunState]) -> Sequence[Run]:
    """Runs in `states`, in the order they should be served: priority, then age."""
    statement = select(Run).where(Run.state.in_(states)).order_by(Run.priority.desc(), Run.created_at, Run.id)
    return (await session.scalars(statement)).all()


async def attempts(session: AsyncSession, run_id: str) -> Sequence[Attempt]:
    """All attempts of a run, oldest first."""
    statement = select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.number)
    return (await session.scalars(statement)).all()


async def current_attempt(session: AsyncSession, run: Run) -> Attempt | None:
    """The attempt that `run.attempt` names."""
    statement = select(Attempt).where(Attempt.run_id == run.id, Attempt.number == run.attempt)
    return (await session.scalars(statement)).one_or_none()


async def children(session: AsyncSession, run_id: str) -> Sequence[Run]:
    return (await session.scalars(select(Run).where(Run.parent_id == run_id))).all()


def newest_first(
    *,
    dialect: str,
    stage: str | None = None,
    states: Sequence[RunState] = (),
    tag: str | None = None,
    pipeline: str | None = None,
    before: tuple[datetime, str] | None = None,
) -> Select[Run]:
    """Query for runs that match, newest first, going on after the run `before` (created_at, id)."""
    query = select(Run).order_by(Run.created_at.desc(), Run.id.desc())
    if stage is not None:
        query = query.where(Run.stage == stage)
    if states:
        query = query.where(Run.state.in_(states))
    if pipeline is not None:
        query = query.where(Run.pipeline_id == pipeline)
    if tag is not None:
        each = func.json_array_elements_text if dialect == "postgresql" else func.json_each
        tags = each(Run.tags).table_valued("value")
        query = query.where(select(1).select_from(tags).where(tags.c.value == tag).exists())
    if before is not None:
        created_at, run_id = before
        older = Run.created_at < created_at
        query = query.where(or_(older, and_(Run.created_at == created_at, Run.id < run_id)))
    return query


async def count_by_state(session: AsyncSession) -> dict[str, int]:
    """Number of runs in each state that has any."""
    rows = await session.execute(select(Run.state, func.count()).group_by(Run.state))
    return {state: count for state, count in rows}  # noqa: C416 - dict() loses the types
