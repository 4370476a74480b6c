"""Storing what a worker ships: log bytes and events, each replay a no-op, durable once acknowledged.

Everything of one call is one transaction: data, acknowledged offset, counters of the run.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, cast, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import ProblemItem
from server.attempts.repository import mark_running
from server.checkpoints.store import store_checkpoint, store_evaluation
from server.models import Attempt, Event, LogChunk, Member, Run
from server.problems import Conflict
from server.telemetry import series
from server.telemetry.lines import MAX_STEP, TrainerEvent, events_of, numbers, warning, whole

MAX_BODY_BYTES = 1024 * 1024
MAX_LOG_BYTES = 256 * 1024 * 1024
LOG_FULL = b"\n[the log of this run is full: later lines are only in run.log on the worker]\n"
MAX_KEYS = 512
MAX_SUMMARY = 4 * MAX_KEYS  # with the results of evaluations


async def store_log(session: AsyncSession, attempt: Attempt, run: Run, offset: int, data: bytes) -> int:
    """Append what is new of `data`, which starts at byte `offset` of the log. Returns the offset held."""
    fresh = _unseen(attempt.log_acked, offset, data)
    if not fresh:
        return attempt.log_acked
    attempt.log_acked += len(fresh)
    _append(session, attempt, run, fresh)
    await session.flush()
    return attempt.log_acked


async def store_node_log(
    session: AsyncSession, member: Member, attempt: Attempt, run: Run, offset: int, data: bytes
) -> int:
    """Append what is new of a further node's log to the run's, as lines that say `[node K]`.

    `data` starts at byte `offset` of that node's log and is whole lines, but for the last of all. Its lines
    begin on a line of their own, also where node 0 was in the middle of one. Returns the offset held.
    """
    fresh = _unseen(member.log_acked, offset, data)
    if not fresh:
        return member.log_acked
    member.log_acked += len(fresh)
    name = b"[node %d] " % member.node
    lines = b"".join(name + line for line in fresh.splitlines(keepends=True))
    begin = b"" if await _ends_a_line(session, run) else b"\n"
    _append(session, attempt, run, begin + lines + (b"" if lines.endswith(b"\n") else b"\n"))
    await session.flush()
    return member.log_acked


async def _ends_a_line(session: AsyncSession, run: Run) -> bool:
    """Whether the log's last byte ends a line; an empty one does."""
    last_byte = func.substr(LogChunk.data, cast(LogChunk.last - LogChunk.first, Integer), 1)
    query = select(last_byte).where(LogChunk.run_id == run.id).order_by(LogChunk.first.desc()).limit(1)
    found = await session.scalar(query)
    return found is None or bytes(found) == b"\n"


def _append(session: AsyncSession, attempt: Attempt, run: Run, data: bytes) -> None:
    room = MAX_LOG_BYTES - run.log_end
    stored = data if len(data) <= room else data[: max(0, room)] + LOG_FULL if room > 0 else b""
    if stored:
        first, run.log_end = run.log_end, run.log_end + len(stored)
        session.add(
            LogChunk(run_id=run.id, first=first, last=run.log_end, attempt=attempt.number, data=stored)
        )


async def store_events(
    session: AsyncSession, attempt: Attempt, run: Run, offset: int, data: bytes
) -> tuple[int, float | None]:
    """Apply the whole lines among what is new of `data`.

    Returns the offset held, after the last of them, and when the newest one was written (unix seconds, on
    the trainer's clock).
    """
    fresh = _unseen(attempt.events_acked, offset, data)
    events, size = events_of(fresh)
    attempt.events_acked += size
    if events:
        await mark_running(session, attempt, run)
        await _apply(session, attempt, run, events)
    await session.flush()
    return attempt.events_acked, events[-1].t if events else None


def _unseen(acked: int, offset: int, data: bytes) -> bytes:
    if offset > acked:
        gap = ProblemItem(pointer="/offset", message="bytes are missing before this offset", nearest=acked)
        raise Conflict(f"send from offset {acked} on", code="offset_gap", errors=[gap])
    return data[acked - offset :]


async def _apply(session: AsyncSession, attempt: Attempt, run: Run, events: list[TrainerEvent]) -> None:
    head = await series.head_of(session, run.id)
    known = set(head.keys)
    rows: list[dict[str, Any]] = []
    metrics: list[tuple[int, TrainerEvent]] = []
    summary, step, seq = dict(run.summary), run.step, run.last_seq
    for event in events:
        if event.kind == "metric":
            if not event.values.keys() <= known and (dropped := _beyond_limit(event, known)):
                message = f"more than {MAX_KEYS} metrics: {dropped[0]!r} and others are dropped"
                if not summary.get("_full"):
                    summary["_full"] = 1.0
                    seq += 1
                    rows.append(_row(run, attempt, seq, warning(message)))
            seq, step = seq + 1, event.step
            metrics.append((seq, event))
            summary.update(_said(event.values))
            continue
        seq += 1
        rows.append(_row(run, attempt, seq, event))
        if event.kind == "phase" and begins_again(event.data, attempt.number) and event.step is not None:
            await series.append(session, head, attempt.number, metrics)
            await series.rewind(session, head, seq, event.step)
            metrics, step = [], event.step
        await _take(session, attempt, run, event, summary)
    run.summary, run.step, run.last_seq = summary, step, seq
    if len(known) != len(head.keys):
        head.keys = sorted(known)
    if rows:
        await session.execute(insert(Event), rows)
    await series.append(session, head, attempt.number, metrics)


def begins_again(phase: dict[str, Any], attempt: int) -> bool:
    """Whether what was measured after this phase's step is measured anew: a resume, a start from nothing."""
    return phase.get("phase") == "resume" or (attempt > 1 and phase.get("phase") == "train")


async def _take(
    session: AsyncSession, attempt: Attempt, run: Run, event: TrainerEvent, summary: dict[str, Any]
) -> None:
    """What an event that is no metric changes beside being stored."""
    match event.kind:
        case "phase":
            if steps := whole(event.data.get("steps"), MAX_STEP):
                run.steps = steps
        case "checkpoint":
            await store_checkpoint(session, run, event)
        case "eval":
            await store_evaluation(session, run, event)
            for key, value in numbers(event.data.get("values")).items():
                name = f"{event.data.get('name', 'eval')}/{key}"[:128]
                if name in summary or len(summary) < MAX_SUMMARY:
                    summary[name] = value
        case "end":
            if (peak := whole(event.data.get("peak_bytes"))) is not None:
                attempt.peak_bytes = peak


def _said(values: dict[str, float | None]) -> dict[str, Any]:
    """The values that are numbers."""
    if None in values.values():
        return {key: value for key, value in values.items() if value is not None}
    return values


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


def _row(run: Run, attempt: Attempt, seq: int, event: TrainerEvent) -> dict[str, Any]:
    return {
        "run_id": run.id, "seq": seq, "attempt": attempt.number, "kind": event.kind, "step": event.step,
        "t": event.t, "data": event.data,
    }  # fmt: skip
