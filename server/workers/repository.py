"""Workers: who is alive, and what each has left to give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.hardware import Gpu
from nanochat.planner.host import gpu_of
from nanochat_client import types
from nanochat_client.types import MemberState
from server.gangs import repository as gangs
from server.ids import is_id
from server.models import Attempt, Worker, now
from server.problems import NotFound
from server.runs.states import LIVE, QUEUED

#: a worker beats every 2 s; five missed beats and it is not counted on
ALIVE_S = 10.0


@dataclass
class Offer:
    """An alive worker and what is free on it."""

    worker: Worker
    free_slots: int
    free_gpus: list[int]

    @property
    def gpus(self) -> int:
        return len(self.worker.gpus)


@dataclass(frozen=True)
class Holder:
    """An attempt, or a further node of one, and what it takes of its worker."""

    id: str
    run_id: str
    gpus: list[int]


@dataclass
class Load:
    """What a worker is busy with: what a process holds, and what was merely sent to it."""

    live: list[Holder] = field(default_factory=list)
    sent: list[Holder] = field(default_factory=list)

    def busy_gpus(self) -> list[int]:
        return sorted({index for holder in self.live for index in holder.gpus})


async def get(session: AsyncSession, worker_id: str, *, lock: bool = False) -> Worker:
    worker = None
    if is_id(worker_id):
        worker = await session.get(Worker, worker_id, with_for_update=lock or None, populate_existing=lock)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id!r}: register again", code="unknown_worker")
    return worker


def is_alive(worker: Worker) -> bool:
    """Seen lately. A stamp from the future is from before the clock was set back, and says nothing."""
    return silent_s(worker) < ALIVE_S


def silent_s(worker: Worker) -> float:
    """Seconds since it was seen; a clock that was set back counts as well."""
    return abs((now() - worker.seen_at).total_seconds())


async def others_could(session: AsyncSession, worker_id: str | None, gpus: int) -> bool:
    """Whether another alive worker has what a run with so many GPUs needs."""
    others = select(Worker).where(Worker.id != worker_id)
    return any(is_alive(w) and len(w.gpus) >= gpus for w in await session.scalars(others))


async def all_workers(session: AsyncSession) -> Sequence[Worker]:
    return (await session.scalars(select(Worker).order_by(Worker.registered_at, Worker.id))).all()


async def loads(session: AsyncSession) -> dict[str, Load]:
    """What every worker is busy with, by its id."""
    query = select(Attempt).where(Attempt.worker_id.is_not(None), Attempt.state.in_([*LIVE, QUEUED]))
    found: dict[str, Load] = {}
    for attempt in await session.scalars(query):
        load = found.setdefault(attempt.worker_id or "", Load())
        holder = Holder(attempt.id, attempt.run_id, attempt.gpus)
        (load.sent if attempt.state == QUEUED else load.live).append(holder)
    for member, attempt in await gangs.holding(session):
        load = found.setdefault(member.worker_id, Load())
        holder = Holder(member.id, attempt.run_id, member.gpus)
        (load.sent if member.state == MemberState.SENT else load.live).append(holder)
    return found


async def offers(session: AsyncSession) -> list[Offer]:
    """Alive workers with what is free on each. An attempt that was sent holds a slot, but no GPU yet."""
    busy = await loads(session)
    made = []
    for worker in await all_workers(session):
        if not is_alive(worker):
            continue
        load = busy.get(worker.id, Load())
        taken = load.busy_gpus()
        free = [gpu["index"] for gpu in worker.gpus if gpu["index"] not in taken]
        made.append(Offer(worker, worker.slots - len(load.live) - len(load.sent), free))
    return made


async def best_gpus(session: AsyncSession) -> list[Gpu]:
    """The GPUs of the alive worker that has most; empty: no worker has one."""
    best: list[dict[str, Any]] = max((o.worker.gpus for o in await offers(session)), key=len, default=[])
    return [gpu_of(str(gpu["name"]), int(gpu["memory_bytes"])) for gpu in best]


def worker_view(worker: Worker, load: Load) -> types.Worker:
    return types.Worker(
        id=worker.id,
        host_id=worker.host_id,
        host=worker.host,
        name=worker.name,
        alive=is_alive(worker),
        slots=worker.slots,
        gpus=[types.Gpu.model_validate(gpu) for gpu in worker.gpus],
        busy_gpus=load.busy_gpus(),
        runs=[holder.run_id for holder in load.live],
        stats=types.HostStats.model_validate(worker.stats) if worker.stats else None,
        registered_at=worker.registered_at,
    )


async def views(session: AsyncSession) -> list[types.Worker]:
    busy = await loads(session)
    return [worker_view(worker, busy.get(worker.id, Load())) for worker in await all_workers(session)]
