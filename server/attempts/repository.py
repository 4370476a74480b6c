"""Attempts under their fence: who may write, and what the first sign of life changes."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import RunState
from server.ids import is_id
from server.models import Attempt, Event, Run, now
from server.problems import Conflict, NotFound
from server.runs import repository as runs
from server.runs.states import CRASHES, FAILED, LIVE, LOST, QUEUED, RUNNING, STARTING


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


async def delivering(
    session: AsyncSession, attempt_id: str, fence: int, heir: str | None = None
) -> tuple[Attempt, Run]:
    """Like `fenced`, for the files of an attempt, which matter after its end too: a dead trainer wrote them.

    They are taken from its own worker until the run is claimed again; then from whoever claimed it (`heir`:
    that attempt's id, with its fence), before whose trainer they belong.
    """
    attempt, run = await get(session, attempt_id)
    if heir is not None and attempt.state not in LIVE:
        later, _ = await fenced(session, heir, fence)
        if later.run_id == run.id and later.number > attempt.number:
            return attempt, run
    if attempt.fence != fence or (attempt.state not in LIVE and await _claimed_again(session, attempt)):
        raise stale(attempt, fence)
    return attempt, run


async def _claimed_again(session: AsyncSession, attempt: Attempt) -> bool:
    later = select(Attempt.id).where(
        Attempt.run_id == attempt.run_id, Attempt.number > attempt.number, Attempt.fence > 0
    )
    return (await session.scalars(later.limit(1))).first() is not None


def stale(attempt: Attempt, fence: int) -> Conflict:
    return Conflict(
        f"fence {fence} of attempt {attempt.id} is no longer valid (the attempt is {attempt.state} under "
        f"fence {attempt.fence}): stop its processes and forget it",
        code="stale_fence",
    )


async def mark_running(session: AsyncSession, attempt: Attempt, run: Run) -> None:
    """The trainer has spoken: starting → running. Does nothing in any other state."""
    if attempt.state not in LIVE:
        return  # what a dead one had still to say
    if attempt.state == STARTING:
        attempt.state = RUNNING
    if run.state == STARTING:
        await session.flush()
        await runs.move(session, run.id, RUNNING)


async def prove_dead(session: AsyncSession, worker_id: str, alive: list[str]) -> None:
    """This host says that of its attempts only `alive` have a process: the others may go on anywhere."""
    silent = (Attempt.worker_id == worker_id, Attempt.state == LOST, Attempt.movable.is_(False))
    await session.execute(
        update(Attempt)
        .where(*silent, Attempt.id.not_in(alive))
        .values(movable=True)
        .execution_options(synchronize_session=False)
    )


async def held_by(session: AsyncSession, queued: Collection[Run]) -> dict[str, str]:
    """Runs that may go on only on one host, because nobody has proved that their last trainer is dead.

    Run id → worker id.
    """
    query = select(Attempt).where(
        Attempt.run_id.in_([run.id for run in queued]),
        Attempt.state == LOST,
        Attempt.movable.is_(False),
        Attempt.fence > 0,
    )
    last = {run.id: run.attempt for run in queued}
    found = {}
    for attempt in await session.scalars(query):
        # the attempt after it is either not made yet, or made and not claimed yet
        if attempt.worker_id and last[attempt.run_id] - attempt.number <= 1:
            found[attempt.run_id] = attempt.worker_id
    return found


async def crashes_on(session: AsyncSession, run: Run) -> bool:
    """Whether this crash of `run` and the one before it have no new checkpoint between them."""
    query = select(Attempt).where(Attempt.run_id == run.id, Attempt.number == run.attempt - 1)
    before = (await session.scalars(query)).one_or_none()
    if before is None or before.state != FAILED or before.reason not in CRASHES:
        return False
    saved = (Event.run_id == run.id, Event.kind == "checkpoint")
    newest = await session.scalar(select(func.max(Event.step)).where(*saved, Event.attempt == run.attempt))
    old = await session.scalar(select(func.max(Event.step)).where(*saved, Event.attempt < run.attempt))
    return newest is None or (old is not None and newest <= old)


async def end_queued(session: AsyncSession, run_id: str, state: RunState) -> None:
    """End the attempt that was sent to a worker and not yet claimed, if there is one."""
    await session.execute(
        update(Attempt)
        .where(Attempt.run_id == run_id, Attempt.state == QUEUED)
        .values(state=state, ended_at=now())
        .execution_options(synchronize_session="fetch")
    )
