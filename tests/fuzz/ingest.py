"""Bytes of `events.jsonl` stored as the server stores them, and read back as its routes do."""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client import types
from server.checkpoints.views import checkpoint_view
from server.db import Database
from server.models import Attempt, Base, Checkpoint, Evaluation, Run
from server.runs.views import attempt_view, run_view
from server.telemetry import ingest, repository, series
from server.telemetry.routes import event_view
from tests.fuzz import events
from tests.fuzz.promises import standard, storable

MAX_BYTES = events.MAX_BYTES
IS_JSON = True
WORDS = events.WORDS
seeds = events.seeds


class Rolled(Exception):
    """Ends a transaction that nobody wants to keep."""


def one(data: bytes) -> None:
    loop, database = _place()
    loop.run_until_complete(store_and_read(database, data))


@cache
def _place() -> tuple[asyncio.AbstractEventLoop, Database]:
    loop = asyncio.new_event_loop()
    file = Path(tempfile.mkdtemp(prefix="nanochat-fuzz-")) / "fuzz.db"
    database = Database(f"sqlite+aiosqlite:///{file}")

    async def create() -> None:
        async with database.engines()[-1].begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    loop.run_until_complete(create())
    return loop, database


async def store_and_read(database: Database, data: bytes) -> None:
    """Store `data` for a run of its own, read everything that came of it, and take it all back."""
    try:
        async with database.write() as session:
            run = Run(
                id="r1",
                stage="base",
                name="fuzz",
                state="starting",
                config={},
                gpus=0,
                restarts_left=0,
                attempt=1,
            )
            session.add(run)
            await session.flush()
            attempt = Attempt(id="a1", run_id="r1", number=1, state="starting")
            session.add(attempt)
            await session.flush()
            acked, _ = await ingest.store_events(session, attempt, run, 0, data)
            assert acked <= len(data)
            await session.flush()
            await _read(session)
            raise Rolled
    except Rolled:
        pass


async def _read(session: AsyncSession) -> None:
    session.expire_all()
    run, attempt = await session.get_one(Run, "r1"), await session.get_one(Attempt, "a1")
    _answers(run_view(run), attempt_view(attempt))
    stored = await repository.events(session, "r1", 0, 10_000)
    assert [event.seq for event in stored] == [*range(1, run.last_seq + 1)], "a gap among the events"
    _answers(*map(event_view, stored))
    for points in (await series.read(session, "r1", [], 100)).values():
        assert points.steps == sorted(set(points.steps))
    for checkpoint in await session.scalars(select(Checkpoint)):
        _answers(checkpoint_view(run, checkpoint))
    for row in await session.scalars(select(Evaluation)):
        storable([row.name, row.values, row.counts, row.details])


def _answers(*views: types.Run | types.Attempt | types.Event | types.Checkpoint) -> None:
    for view in views:
        storable(standard(view.model_dump_json()), max_depth=70)
