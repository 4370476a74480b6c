"""Messages as RQ's own workers see them."""

from __future__ import annotations

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from server.queue import QueueAway, WorkQueue


async def test_a_message_is_json_waits_without_timeout_and_is_gone_once_it_was_handled(
    redis_url: str,
) -> None:
    work = WorkQueue(redis_url)
    try:
        await work.enqueue("h1", "a1", "a1-1")
        assert await work.depth("h1") == 1 and not await work.is_gone("a1-1")
        with redis.Redis.from_url(redis_url) as connection:
            job = Job.fetch("a1-1", connection=connection, serializer=JSONSerializer)
            assert (job.func_name, list(job.args), job.timeout) == ("worker.jobs.run_attempt", ["a1"], -1)
            assert job.retries_left is None
            job.set_status(JobStatus.STARTED)
            assert not await work.is_gone("a1-1")
            assert await work.is_gone("a1-1", when_started=True)
            job.delete()
        assert await work.is_gone("a1-1") and await work.depth("h1") == 0
    finally:
        work.close()


async def test_a_message_that_failed_in_its_worker_is_gone(redis_url: str) -> None:
    work = WorkQueue(redis_url)
    try:
        await work.enqueue("h2", "a2", "a2-1")
        with redis.Redis.from_url(redis_url) as connection:
            queue = Queue("host:h2", connection=connection, serializer=JSONSerializer)
            job = queue.jobs[0]
            job.func_name = "worker.jobs.there_is_no_such_function"
            job.save()
            worker = SimpleWorker([queue], connection=connection, serializer=JSONSerializer)
            worker.work(burst=True)
        assert await work.is_gone("a2-1")
    finally:
        work.close()


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1/0"])
async def test_a_queue_that_is_away_says_so_and_breaks_nothing(url: str) -> None:
    work = WorkQueue(url)
    with pytest.raises(QueueAway):
        await work.enqueue("h", "a", "a-1")
    with pytest.raises(QueueAway):
        await work.is_gone("a-1")
    assert not await work.ping()
    work.close()
