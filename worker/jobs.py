"""The RQ job: claim an attempt, run its trainer to the end, report how it ended.

A failed training is a result, not an exception: RQ must not retry it. Not covered: a SIGKILL of this
process itself; the slot's `on_killed` and the next worker's sweep clean up after that.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import time
from pathlib import Path

from nanochat_client.types import Claim, Desired, Finish, Reason
from worker import processes
from worker.api import Api, Away, Refused, insist
from worker.launch import start
from worker.outcome import outcome
from worker.settings import WorkerSettings
from worker.ship import Shipper

log = logging.getLogger(__name__)
POLL_S = 0.05
SHIP_AT_LEAVE_S = 5.0
#: set by the slot before it forks: jobs of this process know their worker
WORKER_ID = ""


def run_attempt(attempt_id: str) -> None:
    """Run one attempt, if it is still to be run."""
    settings = WorkerSettings()
    asked = _Asked()
    signal.signal(signal.SIGTERM, asked.to_leave)
    processes.die_with_parent(signal.SIGTERM)
    api = Api(settings.url, settings.token())
    try:
        claim = insist(lambda: api.claim(attempt_id, WORKER_ID), lambda: asked.leave)
    except (Refused, Away) as error:
        log.info("attempt %s is not for us: %s", attempt_id, error)
        return
    note = live_file(settings.base_dir, attempt_id)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"fence": claim.fence, "run_id": claim.run_id}))
    try:
        _run(settings, api, claim, asked)
    except Exception as error:  # ours: the trainer must not live on, and the run must not wait for its lease
        log.exception("run %s, attempt %d: the worker broke", claim.run_id, claim.number)
        processes.kill(settings.base_dir, claim.attempt_id)
        message = f"the worker broke: {type(error).__name__}: {error}"[:4000]
        body = Finish(fence=claim.fence, outcome="failed", reason=Reason.INTERNAL, message=message)
        _report(api, claim, body, asked)
    finally:
        note.unlink(missing_ok=True)
        api.close()


class _Asked:
    """Whether the worker wants this job to stop its trainer and leave."""

    def __init__(self) -> None:
        self.leave = False

    def to_leave(self, number: int, frame: object) -> None:
        self.leave = True


def live_file(base_dir: Path, attempt_id: str) -> Path:
    """Says that an attempt runs on this host, and under which fence."""
    return base_dir / "worker" / "live" / f"{attempt_id}.json"


def _run(settings: WorkerSettings, api: Api, claim: Claim, asked: _Asked) -> None:
    log.info("run %s (%s), attempt %d: starting", claim.run_id, claim.stage, claim.number)
    try:
        process, directory = start(claim, settings.base_dir)
    except OSError as error:
        full = error.errno == 28
        reason = Reason.DISK_FULL if full else Reason.INTERNAL
        body = Finish(fence=claim.fence, outcome="failed", reason=reason, message=f"cannot start: {error}")
        _report(api, claim, body, asked)
        return
    shipper = Shipper(api, claim.attempt_id, claim.fence, directory, claim.log_acked, claim.events_acked)
    shipper.start()
    lease = _Lease(api, claim, shipper)
    stopped = _supervise(process, settings, claim, asked, lease)
    processes.kill(settings.base_dir, claim.attempt_id)  # ranks that outlived torchrun
    shipper.finish()
    while shipper.is_alive():
        lease.renew()  # shipping a long log may take longer than a lease
        shipper.join(SHIP_AT_LEAVE_S if asked.leave else 0.1)
        if asked.leave:
            break  # the server may be gone too; the files stay, and the next attempt tells the rest
    if shipper.fenced.is_set():
        log.warning("run %s, attempt %d: somebody else has it now", claim.run_id, claim.number)
        return
    _report(api, claim, outcome(directory, process.returncode, claim.fence, stopped), asked)


class _Lease:
    """Renewed in time while the server answers. `wanted`: what its last answer asked for."""

    def __init__(self, api: Api, claim: Claim, shipper: Shipper) -> None:
        self._api, self._claim, self._shipper = api, claim, shipper
        self._every_s = min(2.0, max(0.2, claim.lease_s / 30))  # at least every 2 s, so that stops are quick
        self._next = 0.0
        self.wanted = claim.desired

    @property
    def fenced(self) -> bool:
        """Somebody else has the attempt now."""
        return self._shipper.fenced.is_set()

    def renew(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every_s
        try:
            self.wanted = self._api.beat(self._claim.attempt_id, self._claim.fence).desired
        except Away:
            pass  # the trainer goes on; files grow and are shipped later
        except Refused:
            self._shipper.fenced.set()


def _supervise(
    process: subprocess.Popen[bytes], settings: WorkerSettings, claim: Claim, asked: _Asked, lease: _Lease
) -> bool:
    """Wait for the trainer; stop it when somebody wants that. True when it was asked to stop."""
    kill_at: float | None = None
    while process.poll() is None:
        lease.renew()
        now = time.monotonic()
        must_stop = asked.leave or lease.wanted != Desired.RUN or lease.fenced
        if must_stop and kill_at is None:
            kill_at = now + settings.grace_s
            process.send_signal(signal.SIGTERM)  # torchrun forwards it; the trainer saves and leaves
        if kill_at is not None and now >= kill_at:
            processes.kill(settings.base_dir, claim.attempt_id)
        time.sleep(POLL_S)
    return kill_at is not None


def _report(api: Api, claim: Claim, body: Finish, asked: _Asked) -> None:
    try:
        state = insist(lambda: api.finish(claim.attempt_id, body), lambda: asked.leave).state
        log.info("run %s, attempt %d: %s, now %s", claim.run_id, claim.number, body.outcome, state)
    except (Refused, Away) as error:
        log.warning("run %s, attempt %d: its end was not taken: %s", claim.run_id, claim.number, error)


def report_killed(settings: WorkerSettings, attempt_id: str, number: int | None) -> None:
    """After this attempt's work-horse was killed: end its trainer and tell the server, if it was live."""
    note = live_file(settings.base_dir, attempt_id)
    try:
        fence = json.loads(note.read_text())["fence"]
    except (OSError, ValueError, KeyError):
        return
    processes.kill(settings.base_dir, attempt_id)
    body = Finish(
        fence=fence,
        outcome="failed",
        reason=Reason.KILLED_SIGNAL,
        signal=number,
        message="the worker's process for this run was killed",
    )
    api = Api(settings.url, settings.token())
    deadline = time.monotonic() + 60  # later the next sweep or the lease tells the server
    try:
        insist(lambda: api.finish(attempt_id, body), lambda: time.monotonic() > deadline)
    except (Refused, Away) as error:
        log.warning("attempt %s: its end was not taken: %s", attempt_id, error)
    finally:
        note.unlink(missing_ok=True)
        api.close()
