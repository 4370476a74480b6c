"""Looks every few seconds for what a person should know, raises it once, and clears it when it is over.

Losses are read out of the store as readers of the stream get them; of a run that is far ahead only the last
ones are looked at. Time counts on this process's monotonic clock and only while it looks, so a server that
was down accuses nobody. Not covered: the disk of a server that has no worker on its host.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import AlertKind as Kind
from nanochat_client.types import Reason
from server.alerts import repository, rules
from server.alerts.rules import GIB, Finding, LossWatch
from server.background import Periodic
from server.db import Database
from server.live.hub import Hub
from server.models import Alert, Attempt, Run, Worker
from server.runs.changes import announce
from server.runs.states import LIVE
from server.settings import Settings
from server.telemetry import series
from server.workers import repository as workers

log = logging.getLogger(__name__)
LOSS = "train/loss"
#: events of one run that are looked at in one look
LAST = 2000
#: a worker that is silent for longer is not missed any more
FORGOTTEN_S = 24 * 3600.0
SWEEP_S = 3600.0


@dataclass
class _Followed:
    """What is remembered of a run that is trained."""

    losses: LossWatch
    seq: int
    acked: int = -1
    attempt: str = ""
    spoke_at: float = 0.0


@dataclass
class _State:
    """One look's worth of the store."""

    live: list[tuple[Attempt, Run]]
    workers: Sequence[Worker]
    opened: Sequence[Alert]
    nan_runs: set[str] = field(default_factory=set)

    def was(self, kind: Kind, subject: str) -> bool:
        return any(alert.kind == kind and alert.subject == subject for alert in self.opened)

    def runs_on(self, worker: Worker, gpu: int | None = None) -> tuple[str, ...]:
        mine = [(a, r) for a, r in self.live if a.worker_id == worker.id]
        return tuple(run.id for attempt, run in mine if gpu is None or gpu in attempt.gpus)

    def touched_by(self, alert: Alert) -> list[str]:
        """Runs that are trained now and that the alert is or was about."""
        worker = alert.worker_id
        return [r.id for a, r in self.live if r.id == alert.run_id or (worker and a.worker_id == worker)]


class Lookout:
    """Runs in the server's event loop, one per process; several servers raise each alert once."""

    def __init__(
        self, settings: Settings, db: Database, hub: Hub, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._db, self._hub, self._clock = settings, db, hub, clock
        self._followed: dict[str, _Followed] = {}
        self._started = self._swept = clock()
        self._looks = Periodic("alerts", settings.alert_every_s, self.look)

    async def start(self) -> None:
        if self._settings.alert_every_s:
            await self._looks.start()

    async def stop(self) -> None:
        await self._looks.stop()

    async def look(self) -> None:
        """Raise what is new, clear what is over."""
        async with self._db.read() as session:
            state = await self._read(session)
        found = {finding.key: finding for finding in self._findings(state)}
        opened = {(alert.kind, alert.subject): alert for alert in state.opened}
        for key, finding in found.items():
            if key not in opened:
                async with self._db.write() as session:
                    self._announce(session, await repository.raise_one(session, finding))
                log.warning("alert: %s", finding.message)
        for key, alert in opened.items():
            if key not in found:
                async with self._db.write() as session:
                    told = await repository.clear(session, alert.id, state.touched_by(alert))
                    self._announce(session, told)
        if self._clock() - self._swept > SWEEP_S:
            self._swept = self._clock()
            async with self._db.write() as session:
                await repository.sweep(session)

    def _announce(self, session: AsyncSession, run_ids: list[str]) -> None:
        for run_id in run_ids:
            announce(session, self._hub, run_id)

    async def _read(self, session: AsyncSession) -> _State:
        query = select(Attempt, Run).join(Run, Run.id == Attempt.run_id).where(Attempt.state.in_(LIVE))
        live = [(attempt, run) for attempt, run in await session.execute(query)]
        state = _State(live, await workers.all_workers(session), await repository.still_open(session))
        for attempt, run in live:
            await self._follow(session, attempt, run)
        gone = self._followed.keys() - {run.id for _, run in live}
        if gone:
            ended = select(Run.id).where(Run.id.in_(gone), Run.reason == Reason.NAN_LOSS)
            state.nan_runs = set(await session.scalars(ended))
        for run_id in gone:
            del self._followed[run_id]
        return state

    async def _follow(self, session: AsyncSession, attempt: Attempt, run: Run) -> None:
        known = self._followed.get(run.id)
        if known is None:
            watch = LossWatch(self._settings.alert_loss_spike)
            known = self._followed[run.id] = _Followed(watch, max(0, run.last_seq - LAST))
        if (attempt.id, attempt.events_acked) != (known.attempt, known.acked):
            known.attempt, known.acked, known.spoke_at = attempt.id, attempt.events_acked, self._clock()
        if run.last_seq > known.seq:
            after = max(known.seq, run.last_seq - LAST)
            items = await series.items(session, run.id, after, LAST)
            known.losses.see(_loss(item["values"][LOSS]) for _, item in items if LOSS in item["values"])
            known.seq = run.last_seq
            await asyncio.sleep(0)  # requests between two runs

    # ------------------------------------------------------------ what is wrong now

    def _findings(self, state: _State) -> Iterator[Finding]:
        for _, run in state.live:
            yield from self._of_run(run)
        for run_id in state.nan_runs:
            message = f"run {run_id} ended because its loss is no number"
            yield Finding(Kind.NAN, run_id, message, run_id=run_id, runs=(run_id,))
        for worker in state.workers:
            yield from self._of_worker(worker, state)

    def _of_run(self, run: Run) -> Iterator[Finding]:
        known = self._followed[run.id]

        def finding(
            kind: Kind, message: str, value: float | None = None, limit: float | None = None
        ) -> Finding:
            return Finding(kind, run.id, message, value, limit, run_id=run.id, runs=(run.id,))

        if known.losses.is_nan:
            yield finding(Kind.NAN, f"the loss of {run.name} is no number")
        if known.losses.spike is not None:
            loss, limit = known.losses.spike
            message = f"the loss of {run.name} rose to {loss:.4g}; above {limit:.4g} is unusual here"
            yield finding(Kind.LOSS_SPIKE, message, loss, limit)
        silent_min = (self._clock() - known.spoke_at) / 60
        limit = self._settings.alert_stall_min
        if limit and silent_min >= limit:
            message = f"the trainer of {run.name} has said nothing for {limit:g} minutes"
            yield finding(Kind.STALLED, message, silent_min, limit)

    def _of_worker(self, worker: Worker, state: _State) -> Iterator[Finding]:
        def finding(kind: Kind, message: str, value: float, limit: float, gpu: int | None = None) -> Finding:
            subject = worker.id if gpu is None else f"{worker.id}/{gpu}"
            runs = state.runs_on(worker, gpu)
            return Finding(kind, subject, message, value, limit, worker_id=worker.id, runs=runs)

        limit, silent_s = self._settings.alert_worker_s, workers.silent_s(worker)
        if limit and limit <= min(silent_s, self._clock() - self._started) and silent_s < FORGOTTEN_S:
            message = f"worker {worker.name} has not been heard of for {limit:g} s"
            yield finding(Kind.WORKER_LOST, message, silent_s, limit)
        if not workers.is_alive(worker) or worker.stats is None:
            return
        free, least = int(worker.stats["disk_free_bytes"]), self._settings.alert_disk_gib
        if least and rules.is_low(free, least, was=state.was(Kind.DISK_LOW, worker.id)):
            message = f"the disk of {worker.name} has {free / GIB:.1f} GiB left"
            yield finding(Kind.DISK_LOW, message, free / GIB, least)
        hottest = self._settings.alert_gpu_c
        for gpu in worker.stats.get("gpus", []):
            celsius, index = gpu.get("temperature_c"), int(gpu["index"])
            was = state.was(Kind.GPU_HOT, f"{worker.id}/{index}")
            if hottest and celsius is not None and rules.is_hot(celsius, hottest, was=was):
                message = f"GPU {index} of {worker.name} is at {celsius:.0f} degrees Celsius"
                yield finding(Kind.GPU_HOT, message, celsius, hottest, index)


def _loss(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
