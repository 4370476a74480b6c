"""The workers' side of runs over several nodes, with the worker token."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from sqlalchemy import select

from nanochat_client.types import Acked, Claim, ClaimRequest, Finish, Gathered, Gathering
from server.deps import ServicesDep, Write
from server.gangs import service
from server.ids import is_id
from server.models import Member, Worker
from server.runs.changes import announce
from server.telemetry.internal import Offset, body_of
from server.tokens import WorkerOnly
from server.workers.binding import Foreign, OwnAttempt, key_of

router = APIRouter(prefix="/internal", tags=["internal"], dependencies=[WorkerOnly])


async def _check_member(member_id: str, request: Request, services: ServicesDep) -> None:
    """Whoever speaks for a member is the worker that it was sent to."""
    query = select(Worker.key_id).join(Member, Member.worker_id == Worker.id).where(Member.id == member_id)
    async with services.db.read() as session:
        found = (await session.execute(query)).first() if is_id(member_id) else None
    if found is not None and found[0] != key_of(request):
        raise Foreign(f"member {member_id} is of a worker that registered with another secret than this one")


Own = Depends(_check_member)


@router.post("/members/{member_id}/join", dependencies=[Own])
async def join(member_id: str, body: ClaimRequest, session: Write, services: ServicesDep) -> Claim:
    """Take part in an attempt as one of its further nodes; 409 `not_claimable`: take the next message."""
    return await service.join(session, member_id, body.worker_id, services.settings.lease_s)


@router.post("/members/{member_id}/beat", dependencies=[Own])
async def beat(member_id: str, session: Write) -> Gathered:
    """Renew a member's lease: wait, run or stop."""
    return await service.beat(session, member_id)


@router.put("/members/{member_id}/log", dependencies=[Own])
async def put_log(member_id: str, offset: Offset, request: Request, services: ServicesDep) -> Acked:
    """Bytes of a member's run.log that start at `offset`: whole lines, which join the log of the run."""
    data = await body_of(request)
    async with services.db.write() as session:
        acked, run_id = await service.store_log(session, member_id, offset, data)
        announce(session, services.hub, run_id)
    return Acked(acked=acked)


@router.post("/members/{member_id}/finish", status_code=204, dependencies=[Own])
async def finish(member_id: str, body: Finish, session: Write, services: ServicesDep) -> None:
    """Say how a member's trainer ended."""
    await service.finish(session, member_id, body)
    services.reconciler.hint()


@router.post("/attempts/{attempt_id}/gather", dependencies=[OwnAttempt])
async def gather(attempt_id: str, body: Gathering, session: Write) -> Gathered:
    """Asked by node 0 until every node is there."""
    return await service.gather(session, attempt_id, body)
