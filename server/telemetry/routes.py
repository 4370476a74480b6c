"""What runs have said, over HTTP: logs by byte offset, metric series, events, samples."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Event, FirstBatch, LogChunk, LogPage, Metrics, Page, Sample
from nanochat_client.types.wire import Storable
from server.deps import Read, ServicesDep
from server.runs import repository as runs
from server.runs.pages import Limit
from server.runs.resolve import check_text
from server.telemetry import first_batch, repository, series
from server.telemetry.blocks import Columns
from server.telemetry.internal import router as internal

router = APIRouter(tags=["telemetry"])
router.include_router(internal)
Offset = Annotated[int, Query(ge=0, le=2**53)]
Step = Annotated[int, Query(ge=-1, le=2**53)]
NEVER_BELOW = 1000
AS_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/runs/{run_id}/logs", response_model=LogPage, responses=AS_TEXT)
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
    after = max(after, run.log_start)
    if format == "text":
        headers = {"content-disposition": f'attachment; filename="{run.id}.log"'}
        return StreamingResponse(
            _download(services, run.id, run.log_start),
            media_type="text/plain; charset=utf-8",
            headers=headers,
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


async def _download(services: ServicesDep, run_id: str, start: int) -> AsyncIterator[bytes]:
    async with services.db.read() as session:
        async for piece in repository.log_stream(session, run_id, start):
            yield piece


@router.get("/runs/{run_id}/metrics", response_model=Metrics)
async def get_metrics(
    run_id: str,
    session: Read,
    keys: Annotated[Storable, Query(max_length=8192, description="comma-separated; all when absent")] = "",
    max_points: Annotated[int, Query(ge=2, le=100_000)] = NEVER_BELOW,
    x: Literal["step", "time", "tokens"] = "step",
    first: Step | None = None,
    last: Step | None = None,
) -> Response:
    """Metric series, down-sampled to `max_points` each; minima and maxima are kept.

    `first` and `last` are steps: only what lies between them is down-sampled, which is how a chart zooms in.
    `time` counts seconds from the run's first event, `tokens` takes train/tokens of the same step.
    """
    check_text(keys, "/keys")
    run = await runs.get(session, run_id)
    names = [key for key in keys.split(",") if key]
    start_step, last_step = series.WHOLE
    span = (start_step if first is None else first, last_step if last is None else last)
    found = await series.read(session, run.id, names, max_points, span)
    whole = found if span == series.WHOLE or x != "time" else await series.read(session, run.id, names, 2)
    start = min((points.times[0] for points in whole.values()), default=0.0)
    tokens = await _tokens(session, run.id) if x == "tokens" else {}
    answer = []
    for key, points in sorted(found.items()):
        at: Sequence[float] = points.steps
        values = points.values
        if x == "time":
            at = [time - start for time in points.times]
        elif x == "tokens":
            pairs = [
                (tokens[step], value)
                for step, value in zip(points.steps, values, strict=True)
                if step in tokens
            ]
            at, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        answer.append({"key": key, "x": at, "y": values})
    body = orjson.dumps({"x": x, "series": answer, "last": run.last_seq})  # NaN becomes null
    return Response(body, media_type="application/json")


async def _tokens(session: AsyncSession, run_id: str) -> dict[int, float]:
    """How many tokens the run had seen, by step."""
    found = await series.read(session, run_id, ["train/tokens"], series.ALL)
    points = found.get("train/tokens", Columns())
    return {step: value for step, value in zip(points.steps, points.values, strict=True) if value == value}


@router.get("/runs/{run_id}/events")
async def get_events(
    run_id: str,
    session: Read,
    after: Offset = 0,
    kind: Annotated[list[Storable], Query(max_length=8)] = [],  # noqa: B006 - FastAPI copies it
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


@router.get("/runs/{run_id}/first_batch")
async def get_first_batch(run_id: str, session: Read) -> FirstBatch:
    """What the run read first: up to 4 rows of a micro-batch as text, and which tokens count in the loss."""
    run = await runs.get(session, run_id)
    told = await repository.newest(session, run.id, "first_batch")
    if told is None:
        raise first_batch.missing(run)
    return first_batch.view(told)


def event_view(row: repository.StoredEvent) -> Event:
    return Event(seq=row.seq, kind=row.kind, step=row.step, t=row.t, attempt=row.attempt, data=row.data)
