"""Registration and heartbeats of workers. A registration is proof of death for what it does not list."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import HostStats, WorkerRegister
from server.attempts import repository as attempts
from server.attempts import service
from server.gangs import repository as gangs
from server.ids import new_id
from server.models import Attempt, Worker, now
from server.runs.states import LIVE, QUEUED
from server.workers import binding, repository


async def register(session: AsyncSession, body: WorkerRegister, key_id: str | None = None) -> Worker:
    """The row of this host: the same one however often its worker restarts.

    `key_id`: the key it showed. Raises Conflict when the host is somebody else's.
    """
    worker = (await session.scalars(select(Worker).where(Worker.host_id == body.host_id))).one_or_none()
    if worker is None:
        worker = Worker(id=new_id("w"), host_id=body.host_id)
        session.add(worker)
    else:
        await binding.may_register(session, worker, key_id)
    worker.key_id = key_id
    worker.host, worker.name, worker.slots = body.host, body.name, body.slots
    worker.address = body.address
    worker.gpus = [gpu.model_dump(mode="json") for gpu in body.gpus]
    worker.registered_at = worker.seen_at = now()
    await session.flush()
    return worker


async def bury(session: AsyncSession, worker_id: str, live_attempts: list[str]) -> list[str]:
    """Attempts of this worker without a process are lost at once; the others may be claimed once more.

    Returns the ids of the runs that changed.
    """
    # what was sent to it may have died with the process that took the message: send it again
    await session.execute(
        update(Attempt)
        .where(Attempt.worker_id == worker_id, Attempt.state == QUEUED)
        .values(enqueued_at=None)
        .execution_options(synchronize_session=False)
    )
    query = (
        select(Attempt.id)
        .where(Attempt.worker_id == worker_id, Attempt.state.in_(LIVE))
        .order_by(Attempt.run_id)  # the same order everywhere: no deadlock
    )
    changed = []
    for attempt_id in (await session.scalars(query)).all():
        attempt, run = await attempts.get(session, attempt_id)
        if attempt_id in live_attempts:
            attempt.adoptable, attempt.beat_at = True, now()
            await session.flush()
            continue
        message = "its worker restarted and found no process of it"
        if await service.lose(session, attempt, run, message, proved=True):
            changed.append(run.id)
    await attempts.prove_dead(session, worker_id, live_attempts)
    await gangs.lose(session, worker_id)
    return changed


async def beat(session: AsyncSession, worker_id: str, stats: HostStats) -> None:
    """The worker lives. Raises NotFound (`unknown_worker`): it must register again."""
    worker = await repository.get(session, worker_id)
    worker.seen_at, worker.stats = now(), stats.model_dump(mode="json")
    await session.flush()
