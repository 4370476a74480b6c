"""Health, numbers, and the state of the whole."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from nanochat_client.types import System
from server import deps
from server.alerts import repository as alerts
from server.deps import Read, ServicesDep
from server.problems import ServiceError
from server.queue import QueueAway
from server.runs import repository as runs
from server.system import service, stream
from server.system.metrics import Metrics
from server.webhooks import repository as webhooks
from server.workers import repository as workers

router = APIRouter(tags=["system"])


class NotReady(ServiceError):
    status, code = 503, "not_ready"


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers. Says nothing about the database: see /readyz."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> dict[str, str]:
    """503 until the database answers and is migrated."""
    try:
        async with services.db.read() as session:
            problem = await service.unready(session)
    except (SQLAlchemyError, OSError) as error:
        problem = f"the database does not answer: {str(getattr(error, 'orig', error)).splitlines()[0]}"
    if problem:
        raise NotReady(problem)
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, session: Read, services: ServicesDep) -> Response:
    """Prometheus text."""
    numbers = cast(Metrics, request.app.state.metrics)
    numbers.set_runs(await runs.count_by_state(session))
    alive = [worker for worker in await workers.all_workers(session) if workers.is_alive(worker)]
    numbers.workers.set(len(alive))
    numbers.hosts.set(alive)
    numbers.set_alerts([alert.kind for alert in await alerts.still_open(session)])
    numbers.deliveries.set(sum((await webhooks.pending(session)).values()))
    numbers.listening.set(request.app.state.replicas.listening)
    try:
        for worker in alive:
            numbers.queue.labels(worker.host).set(await services.reconciler.queue.depth(worker.host_id))
        numbers.queue_up.set(1 if await services.reconciler.queue.ping() else 0)
    except QueueAway:
        numbers.queue_up.set(0)
    return Response(numbers.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/system")
async def system(request: Request, session: Read, services: ServicesDep) -> System:
    """Workers with their GPUs and load, queue, database."""
    auth = await request.app.state.keys.is_on()
    return await service.look(session, services, request.app.version, auth=auth)


@router.websocket("/system/stream")
async def system_stream(socket: WebSocket) -> None:
    """The same, as it changes: frames `welcome`, then `batch` of channel `system`."""
    await stream.serve(socket, deps.services(socket), socket.app.version)
