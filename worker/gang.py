"""Runs over several nodes, the worker's side: node 0 gathers the others, and each of them is run here.

Node 0 is an ordinary job (worker/jobs.py) that asks, before its trainer starts, whether all are there. The
others hold their GPUs, renew a lease of their own and do what they are told: wait, run, stop. What they print
joins the run's log, line by line.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from nanochat.paths import STAGE_DIRS
from nanochat.storage import Storage, StorageError
from nanochat_client.types import Claim, Finish, Gathered, Gathering, Reason
from worker import processes
from worker.api import Api, Away, Refused, insist
from worker.artefacts import Fetch, wait_for
from worker.guard import Guard
from worker.host import address
from worker.launch import Meeting, start
from worker.locks import Busy, Locks
from worker.outcome import Exit, outcome
from worker.settings import WorkerSettings
from worker.ship import NodeShipper

log = logging.getLogger(__name__)
#: what the ids of further nodes begin with
MEMBER = "m"
#: all of them within this time, or none: others may need the GPUs that the early ones hold
GATHER_S = 60.0
#: for ranks that wait for one that is gone: they cannot save any more
BROKEN_S = 3.0
#: for the last lines of a node to be stored
LAST_LINES_S = 10.0
POLL_S = 0.1


@dataclass(frozen=True)
class Together:
    """All nodes are there. `claim`: with what they have agreed on."""

    claim: Claim
    meeting: Meeting


def gather(
    api: Api,
    claim: Claim,
    settings: WorkerSettings,
    storage: Storage | None,
    keeps_waiting: Callable[[], bool],
) -> Together | str:
    """Node 0: wait until every node is there. Returns why not, when they are not."""
    here = address(settings)
    if not here:
        return "this host has no address for others: set NANOCHAT_NODE_ADDRESS"
    body = Gathering(fence=claim.fence, endpoint=f"{here}:{_port(here)}", resume_from=_common(claim, storage))
    deadline = time.monotonic() + GATHER_S
    while time.monotonic() < deadline and keeps_waiting():
        try:
            answer = api.gather(claim.attempt_id, body)
        except Away:
            answer = Gathered(go="wait")
        except Refused as refused:
            return str(refused)
        if answer.go == "run":
            return Together(_agreed(claim, answer), Meeting(answer.endpoint, here))
        if answer.go == "stop":
            return "a node did not stay"
        time.sleep(POLL_S)
    return f"not all of its {claim.nodes} nodes came within {GATHER_S:.0f} s"


def _common(claim: Claim, storage: Storage | None) -> str | None:
    """The checkpoint that every node can read: the newest in the storage, not the newest of this host."""
    if storage is None or claim.config.get("resume_from") != "auto":
        return None  # they share a base directory, or the user has said which
    steps = storage.steps(f"{STAGE_DIRS[claim.stage]}/{claim.run_id}")
    return steps[-1] if steps else ""


def _agreed(claim: Claim, answer: Gathered) -> Claim:
    if answer.resume_from is None:
        return claim
    return claim.model_copy(update={"config": {**claim.config, "resume_from": answer.resume_from}})


def _port(here: str) -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((here, 0))
        return int(probe.getsockname()[1])


def run_node(
    settings: WorkerSettings, host: str, api: Api, member_id: str, worker_id: str, leave: Callable[[], bool]
) -> None:
    """Take part as a further node, from joining to the report."""
    try:
        claim = insist(lambda: api.join(member_id, worker_id), leave)
    except (Refused, Away) as error:
        log.info("node %s is not for us: %s", member_id, error)
        return
    node = _Node(settings, host, api, claim, leave)
    try:
        node.run()
    except Exception as error:
        log.exception("run %s, node %d: the worker broke", claim.run_id, claim.node)
        node.kill()
        reason = Reason.GPU_LOST if isinstance(error, Busy) else Reason.INTERNAL
        reason = Reason.DATA_ERROR if isinstance(error, StorageError) else reason
        node.report(Finish(fence=0, outcome="failed", reason=reason, message=f"{error}"[:4000]))
    finally:
        node.close()


class _Node:
    """A joined member."""

    def __init__(
        self, settings: WorkerSettings, host: str, api: Api, claim: Claim, leave: Callable[[], bool]
    ) -> None:
        self._settings, self._host, self._api, self._claim, self._leave = settings, host, api, claim, leave
        self._locks = Locks(settings.base_dir, host)
        self._guard = Guard(claim.lease_s, settings.grace_s, self.kill, self._left)
        self._every_s, self._next = min(2.0, claim.lease_s / 30), 0.0
        self._told = Gathered(go="wait")

    def run(self) -> None:
        claim, base = self._claim, self._settings.base_dir
        log.info("run %s, attempt %d: node %d of %d", claim.run_id, claim.number, claim.node, claim.nodes)
        self._locks.run(claim.run_id, lambda: processes.kill(base, run_id=claim.run_id, host=self._host))
        self._locks.gpus(claim.gpus, lambda: self._ask().go != "stop" and not self._leave())
        self._guard.start()
        while self._ask().go == "wait" and not self._leave():
            time.sleep(POLL_S)
        if self._told.go != "run" or self._leave():
            return
        claim = self._claim = _agreed(claim, self._told)
        if self._settings.storage_url:
            fetch = Fetch(Storage(self._settings.storage_url, base), claim, base)
            fetch.start()
            wait_for(fetch, self._ask)
            if fetch.error is not None:
                raise fetch.error
        meeting = Meeting(self._told.endpoint, address(self._settings))
        process, directory = start(claim, base, self._host, meeting)
        self._guard.trainer(process.pid)
        shipper = NodeShipper(self._api, claim.attempt_id, directory)
        shipper.start()
        asked = self._supervise(process)
        self.kill()
        self._ship_the_rest(shipper)
        self.report(outcome(directory, Exit(process.returncode, asked=asked or self._guard.fired), 0))

    def _supervise(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the trainer; end it when node 0 has ended, or this worker leaves. Whether we asked."""
        kill_at = float("inf")
        while process.poll() is None:
            now = time.monotonic()
            if kill_at == float("inf") and (self._ask().go == "stop" or self._leave()):
                # told to stop: node 0 has ended, and its ranks with it
                kill_at = now + (BROKEN_S if self._told.go == "stop" else self._settings.grace_s)
                process.send_signal(signal.SIGTERM)
            if now >= kill_at:
                self.kill()
            time.sleep(POLL_S)
        return kill_at != float("inf")

    def _ship_the_rest(self, shipper: NodeShipper) -> None:
        """Before the report, after which nothing more is taken; the others wait for that."""
        shipper.finish()
        give_up_at = time.monotonic() + LAST_LINES_S
        while shipper.is_alive():
            self._ask()
            shipper.join(0.1)
            if time.monotonic() > give_up_at or self._leave():
                shipper.abandon()  # the file stays

    def _ask(self) -> Gathered:
        """What is wanted; asked again when it is time. A server that is away changes nothing."""
        now = time.monotonic()
        if now < self._next:
            return self._told
        self._next = now + (POLL_S if self._told.go == "wait" else self._every_s)
        try:
            self._told = self._api.beat_node(self._claim.attempt_id)
        except Away:
            return self._told
        except Refused:
            self._told = Gathered(go="stop")
            return self._told
        self._guard.renewed(now, True)  # the others go on without us: nobody may train here after the lease
        return self._told

    def report(self, body: Finish) -> None:
        try:
            insist(lambda: self._api.finish_node(self._claim.attempt_id, body), self._leave)
        except (Refused, Away) as error:
            log.warning("node %s: its end was not taken: %s", self._claim.attempt_id, error)

    def kill(self) -> int:
        return processes.kill(self._settings.base_dir, self._claim.attempt_id)

    def _left(self) -> bool:
        return bool(processes.marked(self._settings.base_dir, self._claim.attempt_id))

    def close(self) -> None:
        self.kill()
        self._guard.stop()
        self._locks.release()
        self._api.close()
