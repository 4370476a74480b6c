"""Claim, beat, finish: what a worker may do with an attempt, and what becomes of the run.

Locks are always taken in the order run, attempt, worker.
"""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Beat, Blocked, Claim, Desired, Earlier, Finish, Reason, RunState
from server.attempts import placing, repository
from server.attempts.inputs import filled
from server.attempts.placing import not_claimable
from server.gangs import repository as gangs
from server.gangs.service import broken, verdict
from server.models import Attempt, Run, now
from server.problems import NotFound
from server.runs import repository as runs
from server.runs.states import (
    CANCELLED,
    FAILED,
    LIVE,
    LOST,
    PAUSED,
    QUEUED,
    RETRYABLE,
    STARTING,
    STOPPING,
    SUCCEEDED,
    TERMINAL,
)  # fmt: skip
from server.workers import repository as workers

# ---------------------------------------------------------------- claim


async def claim(session: AsyncSession, attempt_id: str, worker_id: str, lease_s: float) -> Claim:
    """Grant the attempt to one worker under a new fence, with its GPUs and exact config.

    Raises Conflict `not_claimable` when somebody else has it, the user wants it to stop, an input is
    missing, the attempt is gone or the worker has no free GPU; NotFound for an unknown worker.
    """
    try:
        attempt, run = await repository.get(session, attempt_id)
    except NotFound as error:  # its run was deleted while the message waited
        raise not_claimable(error.detail) from None
    worker = await workers.get(session, worker_id, lock=True)
    adopted = attempt.state in LIVE and attempt.adoptable and attempt.worker_id == worker.id
    if not adopted:
        if attempt.state != QUEUED or attempt.number != run.attempt:
            raise not_claimable(f"attempt {attempt_id} is {attempt.state}")
        if run.state != QUEUED or run.desired != Desired.RUN:
            raise not_claimable(f"run {run.id} is {run.state} and {run.desired} is wanted")
    config = await filled(session, run)
    if isinstance(config, Blocked):
        if not adopted:
            raise not_claimable(config.message)
        config = dict(run.config)  # it runs already; what it was given is in its directory
    gpus = list(attempt.gpus) if adopted else await placing.free_gpus(session, worker, placing.share(run))
    fence = attempt.fence + 1
    state = RunState(attempt.state) if adopted else STARTING
    granted = await session.execute(
        update(Attempt)
        .where(Attempt.id == attempt.id, Attempt.fence == attempt.fence, Attempt.state == attempt.state)
        .values(
            state=state,
            fence=fence,
            adoptable=False,
            worker_id=worker.id,
            gpus=gpus,
            beat_at=now(),
            started_at=attempt.started_at or now(),
        )
        .returning(Attempt.id)
        .execution_options(synchronize_session=False)
    )
    if granted.first() is None:
        raise not_claimable(f"attempt {attempt_id} was claimed by another worker")
    if not adopted:
        started = run.started_at or now()
        if not await runs.move(session, run.id, STARTING, started_at=started):
            raise not_claimable(f"run {run.id} is {run.state}")
    return Claim(
        attempt_id=attempt.id,
        run_id=run.id,
        number=attempt.number,
        fence=fence,
        stage=run.stage,
        name=run.name,
        config=config,
        gpus=gpus,
        processes=placing.ranks(run),
        nodes=attempt.nodes,
        desired=Desired(run.desired),
        lease_s=lease_s,
        seconds_left=await _seconds_left(session, run),
        earlier=[
            Earlier(attempt_id=lost.id, number=lost.number)
            for lost in await runs.attempts(session, run.id)
            if lost.state == LOST
        ],
        log_acked=attempt.log_acked,
        events_acked=attempt.events_acked,
    )


async def _seconds_left(session: AsyncSession, run: Run) -> float | None:
    """What the attempts so far have left of `max_duration_s`."""
    if run.max_duration_s is None:
        return None
    spent = sum(attempt.seconds for attempt in await runs.attempts(session, run.id))
    return max(0.0, run.max_duration_s - spent)


# ---------------------------------------------------------------- beat


async def beat(session: AsyncSession, attempt_id: str, body: Beat) -> tuple[Run, bool, bool, bool]:
    """Renew the lease. Returns the run, whether its state changed (the worker now knows to stop), whether
    another host could go on with it, and whether one of its other nodes is gone.

    The attempt counts as movable only once its worker has said that it acts on that: an answer may be lost.
    With one host nothing is movable, so the trainer goes on however long the server is away.
    """
    attempt, run = await repository.fenced(session, attempt_id, body.fence)
    movable = await workers.others_could(session, attempt.worker_id, placing.share(run))
    attempt.beat_at, attempt.movable = now(), movable and body.movable
    attempt.seconds = max(attempt.seconds, body.seconds)
    if run.desired == Desired.RUN or attempt.state == STOPPING:
        await session.flush()
        return run, False, movable, await broken(session, attempt)
    attempt.state = STOPPING
    await session.flush()
    return run, await runs.move(session, run.id, STOPPING), movable, False


# ---------------------------------------------------------------- finish


async def finish(session: AsyncSession, attempt_id: str, body: Finish) -> tuple[Run, bool]:
    """Write down how the attempt ended and decide what becomes of the run.

    Repeating a finish answers what was decided (second value False). Raises NotFound, Conflict `stale_fence`.
    """
    attempt, run = await repository.get(session, attempt_id)
    if attempt.fence != body.fence:
        raise repository.stale(attempt, body.fence)
    if attempt.state not in LIVE:
        if attempt.state == LOST:
            raise repository.stale(attempt, body.fence)
        return run, False
    body = await verdict(session, attempt, run, body)
    await gangs.end(session, attempt.id)
    message = body.message.replace("\0", "") if body.message else None
    reason = body.reason or (Reason.INTERNAL if body.outcome == "failed" else None)
    attempt.exit_code, attempt.signal = body.exit_code, body.signal
    attempt.peak_bytes = body.peak_bytes if body.peak_bytes is not None else attempt.peak_bytes
    attempt.reason, attempt.message, attempt.tail = reason, message, body.tail
    attempt.ended_at, attempt.adoptable = now(), False
    attempt.seconds = attempt.seconds if body.seconds is None else body.seconds
    ended = {"exit_code": body.exit_code, "signal": body.signal}
    if attempt.peak_bytes is not None:
        ended["peak_bytes"] = max(attempt.peak_bytes, run.peak_bytes or 0)
    target = await _decide(session, run, body.outcome, reason, message, ended)
    # the attempt says what happened to it, the run what becomes of it
    attempt.state = target if target != QUEUED else FAILED if body.outcome == "failed" else PAUSED
    await session.flush()
    return run, True


async def _decide(
    session: AsyncSession,
    run: Run,
    outcome: str,
    reason: Reason | None,
    message: str | None,
    ended: dict[str, int | None],
) -> RunState:
    """Move the run to where this end leads; returns that state."""
    if outcome == "succeeded":
        await runs.move(session, run.id, SUCCEEDED, reason=None, message=message, **ended)
    elif run.desired == Desired.CANCEL:
        await _through_stopping(session, run, CANCELLED, message, ended)
    elif run.desired == Desired.PAUSE and (outcome == "stopped" or reason in RETRYABLE):
        await _through_stopping(session, run, PAUSED, message, ended)
    elif outcome == "stopped":
        # its worker shuts down; the run goes on elsewhere or later, which costs no restart
        await runs.move(session, run.id, QUEUED, reason=None, message=message)
    elif reason in RETRYABLE and run.restarts_left > 0 and await repository.crashes_on(session, run):
        message = f"crashed twice without a new checkpoint in between; the last time: {message or reason}"
        await runs.move(session, run.id, FAILED, reason=Reason.CRASH_LOOP, message=message, **ended)
    elif reason in RETRYABLE and run.restarts_left > 0:
        left = run.restarts_left - 1
        await runs.move(session, run.id, QUEUED, reason=reason, message=message, restarts_left=left)
    else:
        await runs.move(session, run.id, FAILED, reason=reason, message=message, **ended)
    return RunState(run.state)


async def _through_stopping(
    session: AsyncSession, run: Run, target: RunState, message: str | None, ended: dict[str, int | None]
) -> None:
    await runs.move(session, run.id, STOPPING)
    await runs.move(session, run.id, target, reason=None, message=message, **ended)


# ---------------------------------------------------------------- lost


async def lose(
    session: AsyncSession, attempt: Attempt, run: Run, message: str, *, proved: bool = False
) -> bool:
    """The attempt's processes are dead or beyond reach: write that down, and settle the run at once.

    `proved`: its own host says that nothing of it lives. Without that, and unless its worker has promised
    to stop it by itself (`movable`), the run goes on only on the same host, whose lock keeps two trainers
    of one run apart. False when the attempt had ended in the meantime.
    """
    if attempt.state not in LIVE:
        return False
    attempt.movable = attempt.movable or proved
    attempt.state, attempt.reason, attempt.message = LOST, Reason.LOST_WORKER, message
    attempt.ended_at, attempt.adoptable = now(), False
    await gangs.end(session, attempt.id)
    await session.flush()
    if run.state not in TERMINAL:
        await runs.move(session, run.id, LOST)
        await settle(session, run, message)
    return True


async def settle(session: AsyncSession, run: Run, message: str | None = None) -> None:
    """What becomes of a lost run: it goes on, rests or ends, as the user wants."""
    reason = Reason.LOST_WORKER
    if run.desired == Desired.CANCEL:
        await runs.move(session, run.id, CANCELLED, message=message)
    elif run.desired == Desired.PAUSE:
        await runs.move(session, run.id, PAUSED, message=message)
    elif run.restarts_left > 0:
        left = run.restarts_left - 1
        await runs.move(session, run.id, QUEUED, reason=reason, message=message, restarts_left=left)
    else:
        await runs.move(session, run.id, FAILED, reason=reason, message=message)
