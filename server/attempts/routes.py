"""The worker's side of an attempt, over HTTP with the worker token. Log and events: server/telemetry."""

from __future__ import annotations

import contextlib
from functools import partial

from fastapi import APIRouter, Request

from nanochat_client.types import Beat, BeatAnswer, Claim, ClaimRequest, Desired, Finish, Finished, RunState
from server.attempts import service
from server.db import after_commit
from server.deps import ServicesDep, Write
from server.problems import NotFound
from server.runs.changes import announce
from server.tokens import WorkerOnly
from server.workers import binding
from server.workers.binding import OwnAttempt

router = APIRouter(prefix="/internal/attempts", tags=["internal"], dependencies=[WorkerOnly, OwnAttempt])


@router.post("/{attempt_id}/claim")
async def claim(
    attempt_id: str, body: ClaimRequest, request: Request, session: Write, services: ServicesDep
) -> Claim:
    """Ask for an attempt; 409 `not_claimable` means: take the next message."""
    with contextlib.suppress(NotFound):  # said below, when the attempt is found
        await binding.check_worker(session, body.worker_id, binding.key_of(request))
    granted = await service.claim(session, attempt_id, body.worker_id, services.settings.lease_s)
    announce(session, services.hub, granted.run_id, services.reconciler.hint)
    after_commit(session, partial(services.engines.gpus_claimed, body.worker_id, granted.gpus))
    return granted


@router.post("/{attempt_id}/beat")
async def beat(attempt_id: str, body: Beat, session: Write, services: ServicesDep) -> BeatAnswer:
    """Renew the lease and learn what is wanted."""
    run, changed, movable, broken = await service.beat(session, attempt_id, body)
    if changed:
        announce(session, services.hub, run.id)
    return BeatAnswer(
        desired=Desired(run.desired), movable=movable, broken=broken, lease_s=services.settings.lease_s
    )


@router.post("/{attempt_id}/finish")
async def finish(attempt_id: str, body: Finish, session: Write, services: ServicesDep) -> Finished:
    """Say how the attempt ended; the answer is what became of the run."""
    run, changed = await service.finish(session, attempt_id, body)
    if changed:
        announce(session, services.hub, run.id, services.reconciler.hint)
    return Finished(state=RunState(run.state))
