"""From queued runs to messages on a host's queue: a plan that is read, then written run by run.

Not covered: fairness between users, and holding GPUs back for a big run while small ones pass it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Blocked, Desired, MemberState
from server.attempts import repository as attempts
from server.attempts.inputs import filled
from server.gangs import repository as gangs
from server.ids import new_id
from server.models import Attempt, Member, Run, Worker, now
from server.queue import QueueAway, WorkQueue
from server.runs import repository as runs
from server.runs.states import QUEUED
from server.workers import repository as workers
from server.workers.placement import per_node, place, place_nodes, take
from server.workers.repository import Offer

#: a message that nobody acted on for this long is looked after
UNCLAIMED_S = 10.0
#: a message that was taken this long ago and led to no claim: its taker died in between
TAKEN_S = 60.0


@dataclass(frozen=True)
class Send:
    """Wake `host_id` for `attempt_id` under a job id that was never used."""

    run_id: str
    attempt_id: str
    host_id: str
    job_id: str


@dataclass(frozen=True)
class Planned:
    """What should happen to one queued run: a message to a worker, or a reason why not."""

    run_id: str
    attempt: int
    """`run.attempt` when this was planned."""
    worker_id: str | None
    host_id: str
    blocked: Blocked | None
    others: tuple[tuple[str, str], ...] = ()
    """Worker and host of the nodes beside the first."""


async def plan(session: AsyncSession, queue: WorkQueue) -> list[Planned]:
    """What to change about queued runs; runs that are on their way or blocked as before are left out."""
    queued = [run for run in await runs.in_states(session, [QUEUED]) if run.desired == Desired.RUN]
    if not queued:
        return []
    sent = {a.run_id: a for a in await session.scalars(select(Attempt).where(Attempt.state == QUEUED))}
    offers = await workers.offers(session)
    by_worker = {offer.worker.id: offer for offer in offers}
    held = await attempts.held_by(session, queued)
    to_place = []
    for run in queued:
        attempt = sent.get(run.id)
        offer = by_worker.get(attempt.worker_id or "") if attempt else None
        if attempt is None or offer is None:
            to_place.append(run)
        elif await _is_gone(queue, attempt):
            offer.free_slots += 1
            to_place.append(run)
        else:
            del offer.free_gpus[: per_node(run)]  # nearly taken: the claim will come
    return [planned for run in to_place if (planned := await _place(session, run, offers, held.get(run.id)))]


async def _place(
    session: AsyncSession, run: Run, offers: Sequence[Offer], held: str | None
) -> Planned | None:
    if run.nodes > 1:
        return await _place_nodes(session, run, offers, held)
    chosen: Offer | Blocked
    if held is not None and all(offer.worker.id != held for offer in offers):
        chosen = await _silent(session, run, held)
    else:
        chosen = place(run, [offer for offer in offers if held in (None, offer.worker.id)])
    known_busy = (run.blocked or {}).get("code") == "no_free_slot"
    if isinstance(chosen, Offer) or (chosen.code == "no_free_slot" and not known_busy):
        inputs = await filled(session, run)
        chosen = inputs if isinstance(inputs, Blocked) else chosen
    if isinstance(chosen, Blocked):
        return None if _same(run.blocked, chosen) else Planned(run.id, run.attempt, None, "", chosen)
    take(chosen, run)
    return Planned(run.id, run.attempt, chosen.worker.id, chosen.worker.host_id, None)


async def _place_nodes(
    session: AsyncSession, run: Run, offers: Sequence[Offer], held: str | None
) -> Planned | None:
    chosen = place_nodes(run, offers)
    if held is not None and (isinstance(chosen, Blocked) or all(o.worker.id != held for o in chosen)):
        chosen = await _silent(session, run, held)
    inputs = await filled(session, run)
    blocked = chosen if isinstance(chosen, Blocked) else inputs if isinstance(inputs, Blocked) else None
    if blocked is not None or isinstance(chosen, Blocked):
        assert blocked is not None
        return None if _same(run.blocked, blocked) else Planned(run.id, run.attempt, None, "", blocked)
    for offer in chosen:
        take(offer, run)
    first, *others = [(offer.worker.id, offer.worker.host_id) for offer in chosen]
    return Planned(run.id, run.attempt, *first, None, tuple(others))


async def _silent(session: AsyncSession, run: Run, worker_id: str) -> Blocked:
    worker = await session.get(Worker, worker_id)
    name = worker.name if worker else worker_id
    message = (
        f"its worker {name} fell silent and may still be training it: it goes on when that worker is back; "
        "if that host is gone for good, cancel the run and retry it"
    )
    return Blocked(code="no_worker", message=message, asked={"stage": run.stage, "worker": worker_id})


def _same(stored: dict[str, Any] | None, blocked: Blocked) -> bool:
    """Whether the run says so already. How busy each worker is changes all the time and is not news."""
    if stored is None or stored["code"] != blocked.code:
        return False
    return blocked.code == "no_free_slot" or stored == blocked.model_dump(mode="json")


async def _is_gone(queue: WorkQueue, attempt: Attempt) -> bool:
    """True when the message of a sent attempt was never sent, or will wake nobody any more."""
    if attempt.enqueued_at is None or attempt.job_id is None:
        return True
    age_s = (now() - attempt.enqueued_at).total_seconds()
    if 0 <= age_s < UNCLAIMED_S:  # negative: the clock was set back, so nobody knows
        return False
    try:
        return await queue.is_gone(attempt.job_id, when_started=abs(age_s) > TAKEN_S)
    except QueueAway:
        return False


async def write(session: AsyncSession, planned: Planned) -> list[Send]:
    """Store what was planned if the run is still as it was; returns the messages to send."""
    run = await runs.get(session, planned.run_id, lock=True)
    if run.state != QUEUED or run.desired != Desired.RUN or run.attempt != planned.attempt:
        return []
    run.blocked = planned.blocked.model_dump(mode="json") if planned.blocked else None
    if planned.worker_id is None:
        await session.flush()
        return []
    attempt = await runs.current_attempt(session, run)
    if attempt is None or attempt.state != QUEUED:
        run.attempt += 1
        run.version += 1
        attempt = Attempt(id=new_id("a"), run_id=run.id, number=run.attempt, state=QUEUED, fence=0)
        session.add(attempt)
    times = int(attempt.job_id.rpartition("-")[2]) + 1 if attempt.job_id else 1
    attempt.worker_id, attempt.job_id = planned.worker_id, f"{attempt.id}-{times}"
    attempt.enqueued_at, attempt.nodes = None, 1 + len(planned.others)
    await session.flush()
    sends = [Send(run.id, attempt.id, planned.host_id, attempt.job_id)]
    if run.nodes > 1:
        await gangs.forget(session, attempt.id)  # of an earlier message that nobody took
    for node, (worker_id, host_id) in enumerate(planned.others, start=1):
        member = Member(
            id=new_id("m"), attempt_id=attempt.id, node=node, worker_id=worker_id, state=MemberState.SENT
        )
        session.add(member)
        sends.append(Send(run.id, member.id, host_id, f"{member.id}-1"))
    await session.flush()
    return sends


async def mark_sent(session: AsyncSession, send: Send) -> None:
    """The message is on the queue: look after it when nobody claims in time."""
    attempt = await session.get(Attempt, send.attempt_id)
    if attempt is not None and attempt.job_id == send.job_id:
        attempt.enqueued_at = now()
        await session.flush()
