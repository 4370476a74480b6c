"""Attempts under their fence: who may write, and what the first sign of life changes."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import RunState
from server.ids import is_id
from server.models import Attempt, Run, now
from server.problems import Conflict, NotFound
from server.runs import repository as runs
from server.runs.states import LIVE, QUEUED, RUNNING, STARTING


async def get(session: AsyncSession, attempt_id: str) -> tuple[Attempt, Run]:
    """The attempt and its run, both locked until the transaction ends (run first). Raises NotFound."""
    found = await session.get(Attempt, attempt_id) if is_id(attempt_id) else None
    if found is None:
        raise NotFound(f"there is no attempt {attempt_id!r}")
    run = await runs.get(session, found.run_id, lock=True)
    attempt = await session.get(Attempt, attempt_id, with_for_update=True, populate_existing=True)
    if attempt is None:
        raise NotFound(f"attempt {attempt_id!r} was deleted")
    return attempt, run


async def fenced(session: AsyncSession, attempt_id: str, fence: int) -> tuple[Attempt, Run]:
    """The attempt and its run, locked, for a writer that holds `fence`.

    Raises NotFound, and Conflict `stale_fence` when another claim came later or the attempt has ended.
    """
    attempt, run = await get(session, attempt_id)
    if attempt.fence != fence or attempt.state not in LIVE:
        raise stale(attempt, fence)
    return attempt, run


def stale(attempt: Attempt, fence: int) -> Conflict:
    return Conflict(
        f"fence {fence} of attempt {attempt.id} is no longer valid (the attempt is {attempt.state} under "
        f"fence {attempt.fence}): stop its processes and forget it",
        code="stale_fence",
    )


async def mark_running(session: AsyncSession, attempt: Attempt, run: Run) -> None:
    """The trainer has spoken: starting → running. Does nothing in any other state."""
    if attempt.state == STARTING:
        attempt.state = RUNNING
    if run.state == STARTING:
        await session.flush()
        await runs.move(session, run.id, RUNNING)


async def end_queued(session: AsyncSession, run_id: str, state: RunState) -> None:
    """End the attempt that was sent to a worker and not yet claimed, if there is one."""
    await session.execute(
        update(Attempt)
        .where(Attempt.run_id == run_id, Attempt.state == QUEUED)
        .values(state=state, ended_at=now())
        .execution_options(synchronize_session="fetch")
    )
