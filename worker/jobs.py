"""One attempt in a process of its own: claim it, run its trainer to the end, report how it ended.

A failed training is a result, not an exception. Not covered: a SIGKILL of this process itself; the guard
ends the trainer then, the slot or the next worker tells the server the rest (worker/salvage.py).
"""

from __future__ import annotations

import errno
import logging
import signal
import subprocess
import time
from pathlib import Path

from nanochat.paths import attempt_dir
from nanochat.storage import Storage, StorageError
from nanochat_client.types import Claim, Desired, Finish, Reason
from worker import notes, processes
from worker.api import Api, Away, Refused, insist
from worker.artefacts import Fetch, Push, wait_for
from worker.gang import BROKEN_S, MEMBER, Together, gather, run_node
from worker.guard import Guard
from worker.host import host_id
from worker.launch import Meeting, start
from worker.lease import Lease
from worker.locks import Busy, Locks
from worker.outcome import Exit, outcome
from worker.salvage import killed, salvage
from worker.settings import WorkerSettings
from worker.ship import Shipper

log = logging.getLogger(__name__)
POLL_S = 0.05
SHIP_AT_LEAVE_S = 5.0
REPORT_S = 60.0
#: a storage that is away when a trainer has ended is waited for so long
PUSH_S = 600.0
#: set by the slot before it forks: jobs of this process know their worker
WORKER_ID = ""


def run_attempt(attempt_id: str) -> None:
    """Run one attempt, or a further node of one, if it is still to be run."""
    settings = WorkerSettings()
    host = host_id(settings)
    asked = _Asked()
    signal.signal(signal.SIGTERM, asked.to_leave)
    processes.die_with_parent(signal.SIGTERM)
    api = Api(settings.url, settings.token())
    if attempt_id.startswith(MEMBER):
        run_node(settings, host, api, attempt_id, WORKER_ID, lambda: asked.leave)
        return
    try:
        claim = insist(lambda: api.claim(attempt_id, WORKER_ID), lambda: asked.leave)
    except (Refused, Away) as error:
        log.info("attempt %s is not for us: %s", attempt_id, error)
        return
    job = _Job(settings, host, api, claim, asked)
    try:
        job.run()
    except Exception as error:  # ours: the trainer must not live on, and the run must not wait for its lease
        log.exception("run %s, attempt %d: the worker broke", claim.run_id, claim.number)
        processes.kill(settings.base_dir, claim.attempt_id)
        job.fail(*_why(error))
    finally:
        job.close()
        api.close()


def report_killed(settings: WorkerSettings, attempt_id: str, number: int | None) -> None:
    """After this attempt's work-horse was killed: end its trainer and tell the server the rest."""
    host = host_id(settings)
    note = notes.read(settings.base_dir, host, attempt_id)
    if note is None:
        return
    api = Api(settings.url, settings.token())
    deadline = time.monotonic() + REPORT_S  # later the next start or the lease tells the server
    try:
        salvage(settings, api, host, note, killed(number), lambda: time.monotonic() > deadline)
    finally:
        api.close()


class _Asked:
    """Whether the worker wants this job to stop its trainer and leave."""

    def __init__(self) -> None:
        self.leave = False

    def to_leave(self, number: int, frame: object) -> None:
        self.leave = True


class _Job:
    """A claimed attempt, from the note on disk to the report."""

    def __init__(self, settings: WorkerSettings, host: str, api: Api, claim: Claim, asked: _Asked) -> None:
        self._settings, self._host, self._api = settings, host, api
        self._claim, self._asked = claim, asked
        self._locks = Locks(settings.base_dir, host)
        self._guard = Guard(claim.lease_s, settings.grace_s, self._kill, self._left)
        self._lease = Lease(api, claim, self._guard)
        self._storage = Storage(settings.storage_url, settings.base_dir) if settings.storage_url else None
        self._push: Push | None = None
        self._told = False
        """The server has everything of this attempt, or wants nothing more of it."""

    def run(self) -> None:
        claim, base = self._claim, self._settings.base_dir
        log.info("run %s (%s), attempt %d: starting", claim.run_id, claim.stage, claim.number)
        note = notes.Note(claim.attempt_id, claim.run_id, claim.number, claim.fence)
        notes.write(base, self._host, note)
        self._locks.run(claim.run_id, lambda: processes.kill(base, run_id=claim.run_id, host=self._host))
        self._locks.gpus(claim.gpus, self._keeps_waiting)
        self._guard.start()
        self._deliver_for_the_lost()
        self._fetch_inputs()
        if (meeting := self._gather()) is None:
            return
        process, directory = start(self._claim, base, self._host, *meeting)
        self._guard.trainer(process.pid)
        self._lease.started_at = time.monotonic()
        shipper = Shipper(
            self._api, claim.attempt_id, claim.fence, directory, claim.log_acked, claim.events_acked
        )
        shipper.start()
        self._start_push()
        why = self._supervise(process, shipper)
        self._kill()  # ranks that outlived torchrun
        self._guard.stop()
        self._locks.release()
        self._push_the_rest()
        self._ship_the_rest(shipper)
        self._report(process.returncode, directory, why, shipper)

    def fail(self, reason: Reason, message: str) -> None:
        """The attempt could not be run as it should."""
        self._finish(Finish(fence=self._claim.fence, outcome="failed", reason=reason, message=message))

    def close(self) -> None:
        self._guard.stop()
        self._locks.release()
        if self._told:
            notes.forget(self._settings.base_dir, self._host, self._claim.attempt_id)

    def _kill(self) -> int:
        return processes.kill(self._settings.base_dir, self._claim.attempt_id)

    def _left(self) -> bool:
        return bool(processes.marked(self._settings.base_dir, self._claim.attempt_id))

    def _keeps_waiting(self) -> bool:
        self._lease.renew()
        return not (self._asked.leave or self._lease.refused or self._lease.wanted != Desired.RUN)

    def _deliver_for_the_lost(self) -> None:
        """Ship what lost attempts of this run left on disk: no process of theirs lives, ours comes after."""
        for lost in self._claim.earlier:
            directory = attempt_dir(self._settings.base_dir, self._claim.run_id, lost.number)
            heir, fence = self._claim.attempt_id, self._claim.fence
            shipper = Shipper(self._api, lost.attempt_id, fence, directory, heir=heir)
            shipper.start()
            self._ship_the_rest(shipper)

    def _fetch_inputs(self) -> None:
        """What other hosts have made and this one lacks. Raises StorageError."""
        if self._storage is not None:
            fetch = Fetch(self._storage, self._claim, self._settings.base_dir)
            fetch.start()
            wait_for(fetch, self._lease.renew)
            if fetch.error is not None:
                raise fetch.error

    def _gather(self) -> tuple[Meeting, ...] | None:
        """Where the other nodes are met, nothing for a run of one node; None: they did not come."""
        if self._claim.nodes == 1:
            return ()
        found = gather(self._api, self._claim, self._settings, self._storage, self._keeps_waiting)
        if isinstance(found, Together):
            self._claim = found.claim
            return (found.meeting,)
        log.info("run %s, attempt %d: %s", self._claim.run_id, self._claim.number, found)
        self._finish(Finish(fence=self._claim.fence, outcome="stopped", message=found))
        return None

    def _start_push(self) -> None:
        if self._storage is not None:
            self._push = Push(self._storage, self._claim, self._settings.base_dir)
            self._push.start()

    def _push_the_rest(self) -> None:
        """Before the end is reported: whoever is started by it may read the checkpoint elsewhere."""
        if self._push is None:
            return
        self._push.finish()
        give_up_at = time.monotonic() + (SHIP_AT_LEAVE_S if self._asked.leave else PUSH_S)

        def look() -> None:
            self._lease.renew()
            if self._lease.refused or time.monotonic() > give_up_at:
                self._push.abandon()  # type: ignore[union-attr]

        wait_for(self._push, look)

    def _supervise(self, process: subprocess.Popen[bytes], shipper: Shipper) -> str:
        """Wait for the trainer; stop it when somebody wants that. Returns why: "" when nobody did."""
        why, kill_at = "", float("inf")
        while process.poll() is None:
            self._lease.renew()
            now = time.monotonic()
            if not why and (why := self._reason_to_stop(shipper)):
                kill_at = now + (BROKEN_S if self._lease.broken else self._settings.grace_s)
                process.send_signal(signal.SIGTERM)  # torchrun forwards it; the trainer saves and leaves
            if now >= kill_at:
                self._kill()
            time.sleep(POLL_S)
        return why

    def _reason_to_stop(self, shipper: Shipper) -> str:
        if self._lease.refused or shipper.fenced.is_set():
            return "fenced"
        if self._asked.leave:
            return "worker leaves"
        if self._lease.wanted != Desired.RUN:
            return str(self._lease.wanted)
        if self._lease.broken:
            return "another node is gone"
        if self._guard.fired:
            return "lease"
        return "time" if self._lease.over_time else ""

    def _ship_the_rest(self, shipper: Shipper) -> None:
        shipper.finish()
        leave_at = float("inf")
        while shipper.is_alive():
            self._lease.renew()  # shipping a long log may take longer than a lease
            shipper.join(0.1)
            if self._asked.leave:
                leave_at = min(leave_at, time.monotonic() + SHIP_AT_LEAVE_S)
            if time.monotonic() >= leave_at:
                shipper.abandon()  # the server may be gone too: the note tells the next worker what to ship

    def _report(self, code: int, directory: Path, why: str, shipper: Shipper) -> None:
        claim = self._claim
        if shipper.fenced.is_set() or self._lease.refused:
            log.warning("run %s, attempt %d: somebody else has it now", claim.run_id, claim.number)
            self._told = True
            return
        if not shipper.complete and self._asked.leave:
            return
        seconds = self._lease.seconds
        over = seconds if why == "time" else None
        how = Exit(code, asked=bool(why) or self._guard.fired, over_time_s=over)
        body = outcome(directory, how, claim.fence, seconds)
        if self._push is not None and not self._push.complete:
            text = f"its last checkpoints are on {self._host} only: the storage did not take them"
            body = body.model_copy(update={"message": body.message or text})
        self._finish(body)

    def _finish(self, body: Finish) -> None:
        claim = self._claim
        try:
            finish = lambda: self._api.finish(claim.attempt_id, body)  # noqa: E731
            state = insist(finish, lambda: self._asked.leave).state
            log.info("run %s, attempt %d: %s, now %s", claim.run_id, claim.number, body.outcome, state)
        except Away as error:
            log.warning("run %s, attempt %d: its end was not taken: %s", claim.run_id, claim.number, error)
            return
        except Refused as error:
            log.warning("run %s, attempt %d: its end was not taken: %s", claim.run_id, claim.number, error)
        self._told = True


def _why(error: Exception) -> tuple[Reason, str]:
    """Reason and message of a failure that is not the trainer's."""
    if isinstance(error, Busy):
        return Reason.GPU_LOST, str(error)
    if isinstance(error, StorageError):
        return Reason.DATA_ERROR, f"an input cannot be fetched: {error}"[:4000]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Reason.DISK_FULL, f"cannot start: {error}"
    return Reason.INTERNAL, f"the worker broke: {type(error).__name__}: {error}"[:4000]
