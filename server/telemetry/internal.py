"""What workers ship: log bytes and event lines by offset."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from nanochat_client.types import Acked
from server.attempts.repository import delivering
from server.deps import ServicesDep
from server.problems import ServiceError
from server.runs.changes import announce
from server.telemetry import ingest
from server.tokens import WorkerOnly
from server.workers.binding import OwnAttempt

router = APIRouter(prefix="/internal/attempts", tags=["internal"], dependencies=[WorkerOnly, OwnAttempt])
Offset = Annotated[int, Query(ge=0, le=2**53)]
Fence = Annotated[int, Query(ge=0, lt=2**31)]
Heir = Annotated[str | None, Query(max_length=16)]


class TooLarge(ServiceError):
    status, code = 413, "too_large"


async def body_of(request: Request) -> bytes:
    """What a worker ships. Raises TooLarge."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > ingest.MAX_BODY_BYTES:
            raise TooLarge(f"send at most {ingest.MAX_BODY_BYTES} bytes at once")
        parts.append(part)
    return b"".join(parts)


@router.put("/{attempt_id}/log")
async def put_log(
    attempt_id: str, offset: Offset, fence: Fence, request: Request, services: ServicesDep, heir: Heir = None
) -> Acked:
    """Bytes of the attempt's run.log that start at `offset`. `heir`: see below."""
    data = await body_of(request)
    async with services.db.write() as session:
        attempt, run = await delivering(session, attempt_id, fence, heir)
        acked = await ingest.store_log(session, attempt, run, offset, data)
        announce(session, services.hub, run.id)
    return Acked(acked=acked)


@router.post("/{attempt_id}/events")
async def post_events(
    attempt_id: str, offset: Offset, fence: Fence, request: Request, services: ServicesDep, heir: Heir = None
) -> Acked:
    """Bytes of the attempt's events.jsonl that start at `offset`; whole lines count.

    `heir`: the attempt that goes on in place of this one, which was lost, and whose fence is given.
    """
    data = await body_of(request)
    async with services.db.write() as session:
        attempt, run = await delivering(session, attempt_id, fence, heir)
        acked, newest_t = await ingest.store_events(session, attempt, run, offset, data)
        announce(session, services.hub, run.id)
    if newest_t is not None:
        request.app.state.metrics.ingest_lag.observe(max(0.0, time.time() - newest_t))
    return Acked(acked=acked)
