"""What runs have said, over HTTP: logs by byte offset, metric series, events, samples."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from nanochat_client.types import Event, LogChunk, LogPage, Metrics, Page, Sample, Series
from server import models
from server.deps import Read, ServicesDep
from server.runs import repository as runs
from server.runs.pages import Limit
from server.runs.resolve import check_text
from server.telemetry import repository
from server.telemetry.downsample import Point, downsample
from server.telemetry.internal import router as internal

router = APIRouter(tags=["telemetry"])
router.include_router(internal)
Offset = Annotated[int, Query(ge=0, lt=2**62)]
NEVER_BELOW = 1000


@router.get("/runs/{run_id}/logs", response_model=LogPage)
async def get_logs(
    run_id: str,
    session: Read,
    services: ServicesDep,
    after: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=1024 * 1024)] = 64 * 1024,
    q: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    format: Literal["json", "text"] = "json",
) -> LogPage | StreamingResponse:
    """The log from byte `after` on, `limit` bytes at most; `q` searches lines (then `limit` counts lines)."""
    run = await runs.get(session, run_id)
    if format == "text":
        headers = {"content-disposition": f'attachment; filename="{run.id}.log"'}
        return StreamingResponse(
            _download(services, run.id), media_type="text/plain; charset=utf-8", headers=headers
        )
    if q is not None:
        found, stopped = await repository.search_log(session, run, q, after, min(limit, 1000))
        items = [LogChunk(offset=offset, text=text) for offset, text in found]
        return LogPage(items=items, first=after, last=stopped, end=run.log_end)
    data = await repository.log_bytes(session, run.id, after, limit)
    text, taken = repository.decode_prefix(
        data, final=run.ended_at is not None and after + len(data) >= run.log_end
    )
    items = [LogChunk(offset=after, text=text)] if text else []
    return LogPage(items=items, first=after, last=after + taken, end=run.log_end)


async def _download(services: ServicesDep, run_id: str) -> AsyncIterator[bytes]:
    async with services.db.read() as session:
        async for piece in repository.log_stream(session, run_id):
            yield piece


@router.get("/runs/{run_id}/metrics")
async def get_metrics(
    run_id: str,
    session: Read,
    keys: Annotated[str, Query(max_length=8192, description="comma-separated; all when absent")] = "",
    max_points: Annotated[int, Query(ge=2, le=100_000)] = NEVER_BELOW,
    x: Literal["step", "time", "tokens"] = "step",
) -> Metrics:
    """Metric series, down-sampled to `max_points` each; minima and maxima are kept.

    `time` counts seconds from the run's first event, `tokens` takes train/tokens of the same step.
    """
    check_text(keys, "/keys")
    run = await runs.get(session, run_id)
    wanted = [key for key in keys.split(",") if key]
    extra = ["train/tokens"] if x == "tokens" and wanted else []
    found = await repository.series(session, run.id, [*wanted, *extra])
    tokens = {step: value for step, _, value in found.get("train/tokens", [])}
    start = min((rows[0][1] for rows in found.values()), default=0.0)
    answer = []
    for key, rows in sorted(found.items()):
        if wanted and key not in wanted:
            continue
        points: list[Point] = []
        for step, t, value in rows:
            at = step if x == "step" else t - start if x == "time" else tokens.get(step)
            if at is not None:
                points.append((at, value))
        points = downsample(points, max_points)
        answer.append(Series(key=key, x=[at for at, _ in points], y=[value for _, value in points]))
    return Metrics(x=x, series=answer, last=run.last_seq)


@router.get("/runs/{run_id}/events")
async def get_events(
    run_id: str,
    session: Read,
    after: Offset = 0,
    kind: Annotated[list[str], Query(max_length=8)] = [],  # noqa: B006 - FastAPI copies it
    limit: Limit = 100,
) -> Page[Event]:
    """Trainer events above sequence number `after`, oldest first; `next_cursor` is the next `after`."""
    run = await runs.get(session, run_id)
    for name in kind:
        check_text(name, "/kind")
    rows = await repository.events(session, run.id, after, limit + 1, kind)
    more = str(rows[limit - 1].seq) if len(rows) > limit else None
    return Page(items=[event_view(row) for row in rows[:limit]], next_cursor=more)


@router.get("/runs/{run_id}/samples")
async def get_samples(run_id: str, session: Read, after: Offset = 0, limit: Limit = 100) -> Page[Sample]:
    """Texts the model wrote while it trained, oldest first."""
    run = await runs.get(session, run_id)
    rows = await repository.events(session, run.id, after, limit + 1, ["sample"])
    items = [
        Sample(
            step=row.step or 0,
            prompt=str(row.data.get("prompt", "")),
            text=str(row.data.get("text", "")),
            t=row.t,
        )
        for row in rows[:limit]
    ]
    return Page(items=items, next_cursor=str(rows[limit - 1].seq) if len(rows) > limit else None)


def event_view(row: models.Event) -> Event:
    return Event(seq=row.seq, kind=row.kind, step=row.step, t=row.t, attempt=row.attempt, data=row.data)
