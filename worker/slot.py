"""One slot of a worker: an RQ worker process that runs one attempt at a time.

`python -m worker.slot WORKER_ID QUEUE`. Only the message we know is executed: a foreign one, whatever
it names, is dropped.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from resource import struct_rusage
from types import FrameType

import psutil
import redis
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from worker import jobs, processes
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)
FUNCTION = "worker.jobs.run_attempt"


class SlotWorker(Worker):
    """RQ's worker with the door closed to foreign messages, and with our own way of stopping.

    Asked to stop, it asks its work-horse to stop the trainer and waits for it. RQ's second signal would
    kill the work-horse, which could then report nothing: here it changes nothing.
    """

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        for horse in psutil.Process().children():
            with suppress(psutil.Error):
                horse.terminate()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        log.info("stopping already")

    def execute_job(self, job: Job, queue: Queue) -> None:
        if job.func_name != FUNCTION or len(job.args or ()) != 1 or not isinstance(job.args[0], str):
            log.warning("dropped a foreign message %s: %s", job.id, str(job.func_name)[:200])
            job.delete()
            return
        super().execute_job(job, queue)


def main(argv: list[str]) -> int:
    worker_id, queue_name = argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s slot %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    processes.die_with_parent(signal.SIGTERM)
    settings = WorkerSettings()
    jobs.WORKER_ID = worker_id
    connection = redis.Redis.from_url(settings.redis_url, health_check_interval=30)

    def on_killed(job: Job, pid: int, status: int, usage: struct_rusage | None) -> None:
        number = status & 0x7F or None
        jobs.report_killed(settings, str(job.args[0]), number)

    try:
        worker = SlotWorker(
            [Queue(queue_name, connection=connection, serializer=JSONSerializer)],
            connection=connection,
            serializer=JSONSerializer,
            work_horse_killed_handler=on_killed,
        )
        worker.work(logging_level="WARNING", with_scheduler=False)
    except redis.exceptions.ConnectionError as error:  # the worker starts this slot again
        log.warning("the queue is gone: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
