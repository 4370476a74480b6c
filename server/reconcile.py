"""The loop that makes what is match what is wanted. Every step can be repeated.

Woken by a hint, else every second: children whose parents ended move on, silent attempts are lost,
queued runs learn why they wait or are sent to a worker. The database is the truth; a message on the
queue is only a wake-up. Redis being away, or one step failing, stops neither the loop nor the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Desired, Reason
from server.attempts import repository as attempts
from server.attempts import service
from server.attempts.leases import LeaseWatch
from server.background import end
from server.db import Database
from server.gangs import repository as gangs
from server.gangs import service as gang_service
from server.live.hub import Hub
from server.models import Attempt, Run
from server.problems import NotFound
from server.queue import QueueAway, WorkQueue
from server.runs import repository as runs
from server.runs.changes import announce
from server.runs.collect import Collector
from server.runs.states import CANCELLED, FAILED, LIVE, LOST, PAUSED, QUEUED, SUCCEEDED, WAITING
from server.settings import Settings
from server.workers import dispatch

log = logging.getLogger(__name__)
EVERY_S = 1.0


class Reconciler:
    """Runs in the server's event loop, one per process.

    With several servers on one database each counts every lease by itself; the first to find one run out ends
    it, and the others' guarded updates find nothing left to do. Not covered: a worker that reaches only a
    server which is down loses its leases to the others; a proxy in front of all of them prevents that.
    """

    def __init__(
        self, settings: Settings, db: Database, hub: Hub, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings, self.db, self.hub = settings, db, hub
        self.queue = WorkQueue(settings.redis_url)
        self._collector = Collector(settings.base_dir, settings.disk_quota_gib, db, hub, settings.storage_url)
        self._leases = LeaseWatch(settings.lease_s, clock)
        self._node_leases = LeaseWatch(settings.lease_s, clock)
        self._hint = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._queue_away = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._loop(), name="reconcile")
        await self._collector.start()

    async def stop(self) -> None:
        await self._collector.stop()
        await end(self._task)
        self.queue.close()

    def hint(self) -> None:
        """Look soon: something changed."""
        self._hint.set()

    async def _loop(self) -> None:
        while True:
            self._hint.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hint.wait(), EVERY_S)

    async def look(self) -> None:
        """Every step once. What one step could not do is tried again at the next look."""
        ends = (self._end_silent, self._end_silent_nodes)
        for step in (self._follow_parents, *ends, self._settle, self._send):
            try:
                await step()
            except Exception:
                log.exception("reconcile step %s failed; trying again", step.__name__)

    async def _follow_parents(self) -> None:
        """waiting → queued when the parent has succeeded, failed when it never will."""
        async with self.db.read() as session:
            waiting = await runs.in_states(session, [WAITING])
            parent_ids = {run.parent_id for run in waiting}
            found = await session.scalars(select(Run).where(Run.id.in_(parent_ids)))
            parents = {parent.id: parent for parent in found}
        for run in waiting:
            parent = parents.get(run.parent_id or "")
            if parent is None or parent.state == SUCCEEDED:
                async with self.db.write() as session:
                    await runs.move(session, run.id, QUEUED)
                    announce(session, self.hub, run.id, self.hint)
            elif parent.state in (FAILED, CANCELLED):
                async with self.db.write() as session:
                    message = f"its parent {parent.id} ({parent.name}) is {parent.state}"
                    await runs.move(session, run.id, FAILED, reason=Reason.PARENT_FAILED, message=message)
                    announce(session, self.hub, run.id, self.hint)

    async def _end_silent(self) -> None:
        """Live attempts whose lease has expired are lost; their runs go on as the user wants."""
        async with self.db.read() as session:
            live = (await session.scalars(select(Attempt).where(Attempt.state.in_(LIVE)))).all()
        beats = {attempt.id: attempt.beat_at for attempt in live}
        for attempt_id in self._leases.expired(live):
            async with self.db.write() as session:
                attempt, run = await attempts.get(session, attempt_id)
                if attempt.beat_at != beats[attempt_id]:
                    continue
                message = f"its worker was silent for more than {self.settings.lease_s:g} s"
                if await service.lose(session, attempt, run, message):
                    log.warning("run %s, attempt %d: %s", run.id, attempt.number, message)
                    announce(session, self.hub, run.id, self.hint)

    async def _end_silent_nodes(self) -> None:
        """The same for the further nodes of a run: node 0 hears of it with its next renewal."""
        async with self.db.read() as session:
            joined = [member for member, _ in await gangs.holding(session) if member.beat_at is not None]
        for member_id in self._node_leases.expired(joined):
            async with self.db.write() as session:
                message = f"it was silent for more than {self.settings.lease_s:g} s"
                if await gang_service.lose(session, member_id, message):
                    log.warning("node %s: %s", member_id, message)

    async def _settle(self) -> None:
        """Runs left in a state on the way to another: lost ones, and queued ones that should not run."""
        async with self.db.read() as session:
            found = await runs.in_states(session, [LOST, QUEUED])
            left = [run.id for run in found if run.state == LOST or run.desired != Desired.RUN]
        for run_id in left:
            async with self.db.write() as session:
                await self._settle_one(session, await runs.get(session, run_id, lock=True))

    async def _settle_one(self, session: AsyncSession, run: Run) -> None:
        if run.state == LOST:
            await service.settle(session, run)
        elif run.state == QUEUED and run.desired != Desired.RUN:
            target = CANCELLED if run.desired == Desired.CANCEL else PAUSED
            await attempts.end_queued(session, run.id, target)
            await runs.move(session, run.id, target)
        announce(session, self.hub, run.id, self.hint)

    async def _send(self) -> None:
        """Queued runs: why they wait, or a message to the worker that should take them."""
        async with self.db.read() as session:
            todo = await dispatch.plan(session, self.queue)
        for planned in todo:
            with contextlib.suppress(NotFound):  # deleted in the meantime
                async with self.db.write() as session:
                    sends = await dispatch.write(session, planned)
                    announce(session, self.hub, planned.run_id)
                if not all([await self._enqueue(send) for send in sends]):
                    return  # the queue is away: the attempt stays unsent and is tried at the next look

    async def _enqueue(self, send: dispatch.Send) -> bool:
        try:
            await self.queue.enqueue(send.host_id, send.attempt_id, send.job_id)
        except QueueAway as error:
            if not self._queue_away:
                log.warning("%s; queued runs wait until it is back", error)
            self._queue_away = True
            return False
        self._queue_away = False
        async with self.db.write() as session:
            await dispatch.mark_sent(session, send)
        return True
