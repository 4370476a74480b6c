"""A run over several nodes: all of them or none.

Node 0 is the attempt's own worker, which claims it as ever; the other nodes are members that join. Trainers
start when every member has joined, and node 0 has said where they meet. A member that is lost or fails ends
the whole attempt: node 0 is told with its next renewal, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import (
    Claim,
    Desired,
    Finish,
    Gathered,
    Gathering,
    MemberState,
    Reason,
)
from server.attempts import placing
from server.attempts.inputs import filled
from server.attempts.repository import fenced
from server.gangs import repository
from server.models import Attempt, Run, now
from server.problems import Conflict
from server.runs.states import LIVE, QUEUED, STARTING
from server.telemetry import ingest
from server.workers import repository as workers

#: what node 0 says when another node has died: its ranks only notice that somebody is gone
HEARSAY = (None, Reason.INTERNAL, Reason.NCCL_TIMEOUT, Reason.KILLED_SIGNAL)


#: an attempt that further nodes may still join
OPEN = (QUEUED, STARTING)


async def join(session: AsyncSession, member_id: str, worker_id: str, lease_s: float) -> Claim:
    """Grant a member its GPUs. Raises Conflict `not_claimable`, NotFound."""
    member, attempt, run = await repository.get(session, member_id)
    worker = await workers.get(session, worker_id, lock=True)
    if member.state != MemberState.SENT or member.worker_id != worker.id or attempt.state not in OPEN:
        raise placing.not_claimable(f"member {member_id} is {member.state}")
    if run.desired != Desired.RUN:
        raise placing.not_claimable(f"{run.desired} is wanted of run {run.id}")
    config = await filled(session, run)
    if not isinstance(config, dict):
        raise placing.not_claimable(config.message)
    member.gpus = await placing.free_gpus(session, worker, placing.share(run))
    member.state, member.beat_at = MemberState.JOINED, now()
    await session.flush()
    return Claim(
        attempt_id=member.id,
        run_id=run.id,
        number=attempt.number,
        fence=0,
        stage=run.stage,
        name=run.name,
        config=config,
        gpus=member.gpus,
        processes=placing.ranks(run),
        nodes=attempt.nodes,
        node=member.node,
        desired=Desired.RUN,
        lease_s=lease_s,
        log_acked=member.log_acked,
        events_acked=0,
    )


async def gather(session: AsyncSession, attempt_id: str, body: Gathering) -> Gathered:
    """Node 0 is ready: `run` once all members have joined. Raises Conflict `stale_fence`."""
    attempt, run = await fenced(session, attempt_id, body.fence)
    attempt.beat_at = now()
    if run.desired != Desired.RUN:
        return Gathered(go="stop")
    members = await repository.of(session, attempt_id)
    if any(member.state not in repository.HOLDS for member in members):
        return Gathered(go="stop")
    late = [member for member in members if member.state != MemberState.JOINED]
    for member in late:
        if not workers.is_alive(await workers.get(session, member.worker_id)):
            return Gathered(go="stop")  # it died after it was chosen
    if late:
        return Gathered(go="wait")
    attempt.endpoint, attempt.resume_from = body.endpoint, body.resume_from
    await session.flush()
    return Gathered(go="run", endpoint=body.endpoint, resume_from=body.resume_from)


async def beat(session: AsyncSession, member_id: str) -> Gathered:
    """Renew a member's lease and tell it what to do. Raises NotFound."""
    member, attempt, _ = await repository.get(session, member_id)
    if member.state != MemberState.JOINED or attempt.state not in (QUEUED, *LIVE):
        return Gathered(go="stop")
    first = await workers.get(session, attempt.worker_id or "")
    if attempt.state == QUEUED and not workers.is_alive(first):
        member.state = MemberState.ENDED  # node 0 died after it was chosen: nobody will ever say `run`
        await session.flush()
        return Gathered(go="stop")
    member.beat_at = now()
    await session.flush()
    if attempt.endpoint is None:
        return Gathered(go="wait")
    return Gathered(go="run", endpoint=attempt.endpoint, resume_from=attempt.resume_from)


async def store_log(session: AsyncSession, member_id: str, offset: int, data: bytes) -> tuple[int, str]:
    """Lines a member's trainer printed go into the run's log: how much is held now, and the run's id.

    Raises NotFound, Conflict `stale_fence` when the member or its attempt has ended, `offset_gap`.
    """
    member, attempt, run = await repository.get(session, member_id)
    if member.state != MemberState.JOINED or attempt.state not in LIVE:
        what = f"member {member_id} is {member.state}, its attempt {attempt.state}"
        raise Conflict(f"{what}: nothing more is taken", code="stale_fence")
    return await ingest.store_node_log(session, member, attempt, run, offset, data), run.id


async def finish(session: AsyncSession, member_id: str, body: Finish) -> None:
    """How a member's trainer ended. What becomes of the run is decided by what node 0 reports."""
    member, _, _ = await repository.get(session, member_id)
    if member.state != MemberState.JOINED:
        return
    failed = body.outcome == "failed"
    member.state = MemberState.FAILED if failed else MemberState.ENDED
    member.reason = (body.reason or Reason.INTERNAL) if failed else None
    member.message = body.message.replace("\0", "") if body.message else None
    await session.flush()


async def broken(session: AsyncSession, attempt: Attempt) -> bool:
    """A node of the attempt is gone, so the others must stop as well."""
    if attempt.nodes == 1:
        return False
    members = await repository.of(session, attempt.id)
    return any(member.state in (MemberState.LOST, MemberState.FAILED) for member in members)


async def verdict(session: AsyncSession, attempt: Attempt, run: Run, body: Finish) -> Finish:
    """What happened to all nodes, given what node 0 says of itself."""
    if attempt.nodes == 1 or body.outcome == "succeeded" or run.desired != Desired.RUN:
        return body
    members = await repository.of(session, attempt.id)
    told = next((m for m in members if m.state == MemberState.FAILED and m.reason not in HEARSAY), None)
    gone = next((m for m in members if m.state == MemberState.LOST), None)
    hearsay = body.outcome == "failed" and body.reason in HEARSAY
    if told is not None:
        reason, message = Reason(str(told.reason)), f"node {told.node}: {told.message or told.reason}"
    elif gone is not None:
        reason, message = Reason.LOST_WORKER, f"node {gone.node} was lost: {gone.message}"
    elif hearsay or any(m.state == MemberState.FAILED for m in members):
        reason, message = Reason.LOST_WORKER, f"a node left the others: {body.message or body.reason}"
    else:
        return body
    return body.model_copy(update={"outcome": "failed", "reason": reason, "message": message[:4096]})


async def lose(session: AsyncSession, member_id: str, message: str) -> bool:
    """A member's lease is over. False when it had ended meanwhile."""
    member, _, _ = await repository.get(session, member_id)
    if member.state != MemberState.JOINED:
        return False
    member.state, member.message = MemberState.LOST, message
    await session.flush()
    return True
