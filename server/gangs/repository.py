"""Members: the nodes of an attempt beside the first, which is the attempt itself."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import MemberState
from server.ids import is_id
from server.models import Attempt, Member, Run
from server.problems import NotFound
from server.runs import repository as runs
from server.runs.states import LIVE, QUEUED

#: it holds its GPUs, or is about to
HOLDS = (MemberState.SENT, MemberState.JOINED)


async def get(session: AsyncSession, member_id: str) -> tuple[Member, Attempt, Run]:
    """The member, its attempt and its run, locked (run, attempt, member). Raises NotFound."""
    found = await session.get(Member, member_id) if is_id(member_id) else None
    attempt = await session.get(Attempt, found.attempt_id) if found else None
    if found is None or attempt is None:
        raise NotFound(f"there is no member {member_id!r}: stop its processes and forget it")
    run = await runs.get(session, attempt.run_id, lock=True)
    attempt = await session.get(Attempt, attempt.id, with_for_update=True, populate_existing=True)
    member = await session.get(Member, member_id, with_for_update=True, populate_existing=True)
    if attempt is None or member is None:
        raise NotFound(f"member {member_id!r} was deleted")
    return member, attempt, run


async def of(session: AsyncSession, attempt_id: str) -> Sequence[Member]:
    query = select(Member).where(Member.attempt_id == attempt_id).order_by(Member.node)
    return (await session.scalars(query)).all()


async def holding(session: AsyncSession) -> Sequence[tuple[Member, Attempt]]:
    """Members of attempts that live, or that were sent, which hold a place on their workers."""
    query = (
        select(Member, Attempt)
        .join(Attempt, Attempt.id == Member.attempt_id)
        .where(Member.state.in_(HOLDS), Attempt.state.in_([*LIVE, QUEUED]))
    )
    return [(member, attempt) for member, attempt in await session.execute(query)]


async def end(session: AsyncSession, attempt_id: str) -> None:
    """The attempt is over: its members are told to stop when they ask next."""
    await session.execute(
        update(Member)
        .where(Member.attempt_id == attempt_id, Member.state.in_(HOLDS))
        .values(state=MemberState.ENDED)
        .execution_options(synchronize_session=False)
    )


async def forget(session: AsyncSession, attempt_id: str) -> None:
    await session.execute(
        delete(Member).where(Member.attempt_id == attempt_id).execution_options(synchronize_session=False)
    )


async def lose(session: AsyncSession, worker_id: str) -> None:
    """The worker has restarted: no member on it has a process left."""
    await session.execute(
        update(Member)
        .where(Member.worker_id == worker_id, Member.state == MemberState.JOINED)
        .values(state=MemberState.LOST, message="its worker restarted and found no process of it")
        .execution_options(synchronize_session=False)
    )
