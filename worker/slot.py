"""One slot of a worker: an RQ worker process that runs one attempt at a time.

`python -m worker.slot WORKER_ID QUEUE PID`; PID is the worker's that starts it. Only the message we know is
executed: a foreign one, whatever it names, is dropped.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from contextlib import suppress
from types import FrameType

import redis
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from nanochat import storage
from worker import jobs, processes
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)
FUNCTION = "worker.jobs.run_attempt"
HEARTBEAT_S = 30.0


class SlotWorker(Worker):
    """RQ's worker with the door closed to foreign messages, and with our own way of running and stopping.

    A message is forgotten once it is taken: the attempt is in the database, which sends another one if
    nobody claims it. So nothing here needs the queue while a trainer works, and a queue that goes away
    stops none. Asked to stop, the slot asks its work-horse to stop the trainer and waits for it.
    """

    settings: WorkerSettings
    _horse: int = 0

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        if not self._horse:
            raise StopRequested
        log.info("stopping: the trainer saves and leaves first")
        self._stop_requested = True
        with suppress(ProcessLookupError):
            os.kill(self._horse, signal.SIGTERM)

    def execute_job(self, job: Job, queue: Queue) -> None:
        attempt_id = _attempt_of(job)
        self._forget(job, queue)
        if attempt_id is None:
            log.warning("dropped a foreign message %s: %s", job.id, str(job.func_name)[:200])
            return
        self._horse = _fork(attempt_id)
        try:
            status = self._wait(self._horse)
        finally:
            self._horse = 0
        if status:  # it leaves with 0 whatever became of the trainer
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            jobs.report_killed(self.settings, attempt_id, number)

    def _forget(self, job: Job, queue: Queue) -> None:
        with suppress(redis.RedisError):  # a message that comes twice is refused by the claim
            self.connection.lrem(f"{queue.key}:intermediate", 0, job.id)
            job.delete()

    def _wait(self, pid: int) -> int:
        """The status of the work-horse when it ends; RQ hears of us meanwhile, if it is there."""
        ended = select.poll()
        descriptor = os.pidfd_open(pid)
        try:
            ended.register(descriptor, select.POLLIN)
            while not ended.poll(HEARTBEAT_S * 1000):
                with suppress(redis.RedisError):
                    self.heartbeat()
        finally:
            os.close(descriptor)
        return os.waitpid(pid, 0)[1]


def _attempt_of(job: Job) -> str | None:
    """The attempt a message names; None when it is not one of ours."""
    try:
        args = job.args or ()
        known = job.func_name == FUNCTION and len(args) == 1 and isinstance(args[0], str)
    except Exception:  # whatever somebody has put there
        return None
    return args[0] if known else None


def _fork(attempt_id: str) -> int:
    """A work-horse for the attempt, in a process group of its own. Returns its pid."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setpgrp()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        jobs.run_attempt(attempt_id)
        code = 0
    except BaseException:
        log.exception("the work-horse of attempt %s broke", attempt_id)
    finally:
        os._exit(code)


def main(argv: list[str]) -> int:
    worker_id, queue_name, parent = argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s slot %(message)s", datefmt="%H:%M:%S")
    for talkative in ("httpx", "aiobotocore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    processes.die_with_parent(signal.SIGTERM)
    if os.getppid() != int(parent):  # it has died before we asked
        return 1
    settings = WorkerSettings()
    jobs.WORKER_ID = worker_id
    if settings.storage_url:
        storage.preload(settings.storage_url)
    connection = redis.Redis.from_url(settings.redis_url, health_check_interval=30)

    try:
        worker = SlotWorker(
            [Queue(queue_name, connection=connection, serializer=JSONSerializer)],
            connection=connection,
            serializer=JSONSerializer,
        )
        worker.settings = settings
        worker.work(logging_level="WARNING", with_scheduler=False)
    except redis.exceptions.ConnectionError as error:  # the worker starts this slot again
        log.warning("the queue is gone: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
