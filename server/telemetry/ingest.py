"""Storing what a worker ships: log bytes and events, each replay a no-op, durable once acknowledged.

Everything of one call is one transaction: data, acknowledged offset, counters of the run.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import ProblemItem
from server.attempts.repository import mark_running
from server.checkpoints.store import store_checkpoint, store_evaluation
from server.models import Attempt, Event, LogChunk, MetricPoint, Run
from server.problems import Conflict
from server.telemetry.lines import TrainerEvent, numbers, parse, warning, whole_lines

MAX_BODY_BYTES = 1024 * 1024
MAX_LOG_BYTES = 256 * 1024 * 1024
LOG_FULL = b"\n[the log of this run is full: later lines are only in run.log on the worker]\n"
MAX_KEYS = 512
POINTS_PER_STATEMENT = 2000


async def store_log(session: AsyncSession, attempt: Attempt, run: Run, offset: int, data: bytes) -> int:
    """Append what is new of `data`, which starts at byte `offset` of the log. Returns the offset held."""
    fresh = _unseen(attempt.log_acked, offset, data)
    if not fresh:
        return attempt.log_acked
    attempt.log_acked += len(fresh)
    room = MAX_LOG_BYTES - run.log_end
    stored = fresh if len(fresh) <= room else fresh[: max(0, room)] + LOG_FULL if room > 0 else b""
    if stored:
        first, run.log_end = run.log_end, run.log_end + len(stored)
        session.add(
            LogChunk(run_id=run.id, first=first, last=run.log_end, attempt=attempt.number, data=stored)
        )
    await session.flush()
    return attempt.log_acked


async def store_events(session: AsyncSession, attempt: Attempt, run: Run, offset: int, data: bytes) -> int:
    """Apply the whole lines among what is new of `data`. Returns the offset held, after the last of them."""
    fresh = _unseen(attempt.events_acked, offset, data)
    lines, size = whole_lines(fresh)
    events = [event for line in lines if (event := parse(line)) is not None]
    attempt.events_acked += size
    if events:
        await mark_running(session, attempt, run)
        await _apply(session, attempt, run, events)
    await session.flush()
    return attempt.events_acked


def _unseen(acked: int, offset: int, data: bytes) -> bytes:
    if offset > acked:
        gap = ProblemItem(pointer="/offset", message="bytes are missing before this offset", nearest=acked)
        raise Conflict(f"send from offset {acked} on", code="offset_gap", errors=[gap])
    return data[acked - offset :]


async def _apply(session: AsyncSession, attempt: Attempt, run: Run, events: list[TrainerEvent]) -> None:
    known = await _known_keys(session, run.id)
    points: dict[tuple[str, int], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    summary = dict(run.summary)
    for event in events:
        if event.kind == "metric" and (dropped := _beyond_limit(event, known)):
            message = f"more than {MAX_KEYS} metrics: {dropped[0]!r} and others are dropped"
            if not summary.get("_full"):
                summary["_full"] = 1.0
                rows.append(_row(run, attempt, warning(message)))
        rows.append(_row(run, attempt, event))
        match event.kind:
            case "metric":
                assert event.step is not None
                run.step = event.step
                for key, value in event.values.items():
                    points[key, event.step] = _point(run, attempt, key, event.step, value, event.t)
                    if value is not None:
                        summary[key] = value
            case "phase":
                if isinstance(steps := event.data.get("steps"), int) and 0 < steps < 2**53:
                    run.steps = steps
                if begins_again(event.data, attempt.number) and event.step is not None:
                    await _write_points(session, points)
                    await _rewind(session, run.id, event.step, attempt.number)
                    points = {}
                    run.step = event.step
            case "checkpoint":
                await store_checkpoint(session, run, event)
            case "eval":
                await store_evaluation(session, run, event)
                for key, value in numbers(event.data.get("values")).items():
                    name = f"{event.data.get('name', 'eval')}/{key}"[:128]
                    summary[name] = value
            case "end":
                peak = event.data.get("peak_bytes")
                if isinstance(peak, int) and 0 <= peak < 2**63:
                    attempt.peak_bytes = peak
    run.summary = summary
    await session.execute(insert(Event), rows)
    await _write_points(session, points)


def begins_again(phase: dict[str, Any], attempt: int) -> bool:
    """Whether what was measured after this phase's step is measured anew: a resume, a start from nothing."""
    return phase.get("phase") == "resume" or (attempt > 1 and phase.get("phase") == "train")


async def _known_keys(session: AsyncSession, run_id: str) -> set[str]:
    return set(await session.scalars(select(MetricPoint.key).distinct().where(MetricPoint.run_id == run_id)))


def _beyond_limit(event: TrainerEvent, known: set[str]) -> list[str]:
    """Take the metrics out of `event` that would exceed the limit of keys; returns their names."""
    dropped = []
    for key in list(event.values):
        if key not in known:
            if len(known) >= MAX_KEYS:
                dropped.append(key)
                del event.values[key]
            else:
                known.add(key)
    return dropped


def _row(run: Run, attempt: Attempt, event: TrainerEvent) -> dict[str, Any]:
    run.last_seq += 1
    data = {**event.data, "values": event.values} if event.kind == "metric" else event.data
    return {
        "run_id": run.id,
        "seq": run.last_seq,
        "attempt": attempt.number,
        "kind": event.kind,
        "step": event.step,
        "t": event.t,
        "data": data,
    }


def _point(run: Run, attempt: Attempt, key: str, step: int, value: float | None, t: float) -> dict[str, Any]:
    return {"run_id": run.id, "key": key, "step": step, "value": value, "t": t, "attempt": attempt.number}


async def _write_points(session: AsyncSession, points: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Insert or replace; a point of a later attempt is never replaced by an earlier one."""
    rows = list(points.values())
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    for start in range(0, len(rows), POINTS_PER_STATEMENT):
        statement = dialect.insert(MetricPoint)
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["run_id", "key", "step"],
            set_={"value": new.value, "t": new.t, "attempt": new.attempt},
            where=new.attempt >= MetricPoint.attempt,
        )
        await session.execute(statement, rows[start : start + POINTS_PER_STATEMENT])


async def _rewind(session: AsyncSession, run_id: str, step: int, attempt: int) -> None:
    """An attempt that resumes, or goes back, begins after `step`: what was measured later never happened."""
    stale = (MetricPoint.run_id == run_id, MetricPoint.step > step, MetricPoint.attempt <= attempt)
    await session.execute(delete(MetricPoint).where(*stale).execution_options(synchronize_session=False))
