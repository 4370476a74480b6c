"""A worker's calls carry the secret it registered with: a key of one host opens no attempt of another.

Hosts that share the worker token trust each other; hosts with a key each (scope `worker`) need not. A host id
changes hands only when its key is revoked or over, or, from the token to a key, when its worker has gone.
Not covered: a host that was registered by nobody yet.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Query, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.deps import ServicesDep
from server.ids import is_id
from server.keys.ring import Caller, KeyRing
from server.models import Attempt, Key, Worker, now
from server.problems import Conflict, ServiceError
from server.workers import repository

Heir = Annotated[str | None, Query(max_length=16)]


class Foreign(ServiceError):
    status, code = 403, "foreign_worker"


def key_of(request: Request) -> str | None:
    """The id of the key that the request came with; None: the worker token."""
    caller = cast(Caller | None, getattr(request.state, "caller", None))
    return caller.key_id or None if caller is not None else None


async def may_register(session: AsyncSession, worker: Worker, key_id: str | None) -> None:
    """Raises Conflict when the host is somebody else's."""
    if worker.key_id == key_id or key_id is None:
        return
    if worker.key_id is None:
        taken = repository.is_alive(worker)
    else:
        key = await session.get(Key, worker.key_id)
        taken = key is not None and (key.expires_at is None or key.expires_at > now())
    if taken:
        raise Conflict(
            f"host id {worker.host_id} is registered with another secret: stop that worker or revoke its "
            "key, or give this host a NANOCHAT_HOST_ID of its own",
            code="foreign_worker",
        )


async def check_worker(session: AsyncSession, worker_id: str, key_id: str | None) -> None:
    """Raises Foreign when the worker registered with another secret, NotFound when there is none."""
    if (await repository.get(session, worker_id)).key_id != key_id:
        raise Foreign(f"worker {worker_id} registered with another secret than this one")


async def _check_attempt(attempt_id: str, request: Request, services: ServicesDep, heir: Heir = None) -> None:
    """Whoever writes for an attempt, or as the `heir` of a lost one, is the worker that has it."""
    key_id = key_of(request)
    if key_id is None and not await cast(KeyRing, request.app.state.keys).has_workers():
        return  # everybody shows the token
    writes = heir or attempt_id
    query = select(Worker.key_id).join(Attempt, Attempt.worker_id == Worker.id).where(Attempt.id == writes)
    async with services.db.read() as session:
        found = (await session.execute(query)).first() if is_id(writes) else None
    if found is not None and found[0] != key_id:
        raise Foreign(f"attempt {writes} is of a worker that registered with another secret than this one")


#: for `APIRouter(dependencies=[…])` of routes with an attempt's id
OwnAttempt = Depends(_check_attempt)
