"""Workers over HTTP: the list for everybody, registration and heartbeats with the worker token."""

from __future__ import annotations

from fastapi import APIRouter, Request

from nanochat_client.types import Page, Worker, WorkerBeat, WorkerRegister, WorkerRegistered
from server.deps import Read, ServicesDep, Write
from server.runs.changes import announce
from server.tokens import WorkerOnly
from server.workers import binding, repository, service

router = APIRouter()
SYSTEM = "system"


@router.get("/workers", tags=["system"])
async def list_workers(session: Read) -> Page[Worker]:
    """Every host that ever registered, with what it offers and what it does."""
    return Page(items=await repository.views(session))


@router.post("/internal/workers", tags=["internal"], dependencies=[WorkerOnly])
async def register(body: WorkerRegister, request: Request, services: ServicesDep) -> WorkerRegistered:
    """Sent when a worker starts, and again when a beat is answered with 404."""
    async with services.db.write() as session:
        worker = await service.register(session, body, binding.key_of(request))
    async with services.db.write() as session:  # apart from the first: runs are locked before workers
        for run_id in await service.bury(session, worker.id, body.live_attempts):
            announce(session, services.hub, run_id)
    services.hub.notify(SYSTEM)
    services.reconciler.hint()
    return WorkerRegistered(
        worker_id=worker.id, queue=f"host:{worker.host_id}", lease_s=services.settings.lease_s
    )


@router.post(
    "/internal/workers/{worker_id}/beat", status_code=204, tags=["internal"], dependencies=[WorkerOnly]
)
async def beat(
    worker_id: str, body: WorkerBeat, request: Request, session: Write, services: ServicesDep
) -> None:
    """Sent every 2 s. 404 `unknown_worker`: register again."""
    await binding.check_worker(session, worker_id, binding.key_of(request))
    await service.beat(session, worker_id, body.stats)
