"""How long logs and metrics of ended runs are kept in the database: by the settings, for ever by default.

Of an old log its end stays, of an old series 1,000 points with its minima and maxima (all of a shorter one);
events that are no metrics, samples and evaluations stay. Runs tagged `keep` are left alone. Readers of the
stream who ask for what is gone are told by a `gap` frame. Not covered: run.log and events.jsonl on disk,
which the disk quota removes with their run.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta

from sqlalchemy import delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from server.background import Periodic
from server.db import Database
from server.models import LogChunk, MetricChunk, MetricHead, Run, now
from server.problems import NotFound
from server.runs import repository as runs
from server.runs.states import TERMINAL
from server.settings import Settings
from server.telemetry import series

log = logging.getLogger(__name__)
EVERY_S = 600.0
#: bytes at the end of a log that stay
TAIL_BYTES = 64 * 1024
#: points of a series that stay
POINTS = 1000
#: runs at a time; the next look takes more
AT_ONCE = 100
KEEP = "keep"


class Retention:
    """Looks every ten minutes, in a task of its own."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._logs_days, self._metrics_days, self._db = (
            settings.keep_logs_days,
            settings.keep_metrics_days,
            db,
        )
        self._looks = Periodic("retention", EVERY_S, self.look)

    async def start(self) -> None:
        if self._logs_days or self._metrics_days:
            await self._looks.start()

    async def stop(self) -> None:
        await self._looks.stop()

    async def look(self) -> tuple[int, int]:
        """How many runs lost log, and how many lost points."""
        logs, metrics = 0, 0
        if self._logs_days:
            long = exists().where(LogChunk.run_id == Run.id, LogChunk.last <= Run.log_end - TAIL_BYTES)
            for run_id in await self._old(self._logs_days, long):
                with contextlib.suppress(NotFound):
                    async with self._db.write() as session:
                        await shorten_log(session, await runs.get(session, run_id, lock=True))
                    logs += 1
        if self._metrics_days:
            for run_id in await self._old(self._metrics_days, exists().where(MetricChunk.run_id == Run.id)):
                with contextlib.suppress(NotFound):
                    async with self._db.write() as session:
                        await thin_metrics(session, await runs.get(session, run_id, lock=True))
                    metrics += 1
        if logs or metrics:
            log.info("retention: logs of %d run(s) shortened, metrics of %d thinned", logs, metrics)
        return logs, metrics

    async def _old(self, days: float, has: ColumnElement[bool]) -> list[str]:
        query = select(Run.id, Run.tags).where(
            Run.state.in_(TERMINAL), Run.ended_at < now() - timedelta(days=days), has
        )
        async with self._db.read() as session:
            found = (await session.execute(query.order_by(Run.ended_at).limit(10 * AT_ONCE))).all()
        return [run_id for run_id, tags in found if KEEP not in tags][:AT_ONCE]


async def shorten_log(session: AsyncSession, run: Run) -> None:
    """Drop whole chunks from the start, so that at least `TAIL_BYTES` stay."""
    old = (LogChunk.run_id == run.id, LogChunk.last <= run.log_end - TAIL_BYTES)
    run.log_start = max(run.log_start, await session.scalar(select(func.max(LogChunk.last)).where(*old)) or 0)
    await session.execute(delete(LogChunk).where(*old).execution_options(synchronize_session=False))
    await session.flush()


async def thin_metrics(session: AsyncSession, run: Run) -> None:
    head = await session.get(MetricHead, run.id)
    if head is not None:
        await series.reduce(session, head, run.last_seq, POINTS)
    run.metric_start = run.last_seq
    await session.flush()
