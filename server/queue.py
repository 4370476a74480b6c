"""Wake-up messages for workers, over RQ. The table `attempts` is the truth; a message only hints at it.

One queue per host (`host:<host id>`), JSON serializer, no timeout, no retries by RQ: retries live in our
database. Calls block on Redis for a few seconds at most and run in a thread.
"""

from __future__ import annotations

import asyncio

import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

FUNCTION = "worker.jobs.run_attempt"
WAITING = {JobStatus.CREATED, JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED}


class QueueAway(Exception):
    """Redis does not answer; try again later."""


class WorkQueue:
    """The queue at `url`; an empty URL is a queue that is always away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5) if url else None

    async def enqueue(self, host_id: str, attempt_id: str, job_id: str) -> None:
        """Wake a worker on `host_id` for the attempt. Raises QueueAway."""
        await asyncio.to_thread(self._enqueue, host_id, attempt_id, job_id)

    async def is_gone(self, job_id: str, *, when_started: bool = False) -> bool:
        """True when no worker will act on the message any more. Raises QueueAway.

        `when_started`: a message that was taken counts as gone too (its taker must have died).
        """
        return await asyncio.to_thread(self._is_gone, job_id, when_started)

    async def depth(self, host_id: str) -> int:
        """Messages waiting for the host. Raises QueueAway."""
        return await asyncio.to_thread(self._depth, host_id)

    async def ping(self) -> bool:
        """True when the queue answers."""
        return await asyncio.to_thread(self._ping)

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()

    def _connection(self) -> redis.Redis:
        if self._redis is None:
            raise QueueAway("NANOCHAT_REDIS_URL is not set: `nanochat up` sets it to its own Valkey")
        return self._redis

    def _enqueue(self, host_id: str, attempt_id: str, job_id: str) -> None:
        try:
            queue = Queue(f"host:{host_id}", connection=self._connection(), serializer=JSONSerializer)
            queue.enqueue_call(
                FUNCTION, args=(attempt_id,), timeout=-1, result_ttl=0, failure_ttl=3600, job_id=job_id
            )
        except redis.RedisError as error:
            raise QueueAway(f"the queue does not answer: {error}") from None

    def _is_gone(self, job_id: str, when_started: bool) -> bool:
        try:
            job = Job.fetch(job_id, connection=self._connection(), serializer=JSONSerializer)
            status = job.get_status(refresh=False)
            return status not in WAITING or (when_started and status == JobStatus.STARTED)
        except NoSuchJobError:
            return True
        except redis.RedisError as error:
            raise QueueAway(f"the queue does not answer: {error}") from None

    def _depth(self, host_id: str) -> int:
        try:
            return Queue(f"host:{host_id}", connection=self._connection(), serializer=JSONSerializer).count
        except redis.RedisError as error:
            raise QueueAway(f"the queue does not answer: {error}") from None

    def _ping(self) -> bool:
        try:
            return bool(self._connection().ping())
        except (redis.RedisError, QueueAway):
            return False
