"""A worker that is nothing but its HTTP calls: registers, claims, beats, finishes. Trains nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from tests.services import Service, eventually

STATS = {
    "cpu": 0.5, "cores": 2, "memory_used_bytes": 1, "memory_total_bytes": 2,
    "disk_free_bytes": 300 << 30, "disk_total_bytes": 400 << 30,
}  # fmt: skip
TERMINAL = {"succeeded", "failed", "cancelled"}


class FakeWorker:
    def __init__(self, service: Service, *, gpus: int = 0, slots: int = 2, host_id: str = "host-a") -> None:
        self.service, self.http, self.host_id = service, service.internal, host_id
        self.gpus, self.slots = gpus, slots
        self.register()

    def register(self, live_attempts: list[str] | None = None) -> None:
        gpus = [{"index": i, "name": "Fake 5090", "memory_bytes": 32 << 30} for i in range(self.gpus)]
        body = {
            "host_id": self.host_id, "host": "fake", "name": self.host_id, "slots": self.slots,
            "gpus": gpus, "live_attempts": live_attempts or [],
        }  # fmt: skip
        answer = self.http.post("/internal/workers", json=body).raise_for_status().json()
        self.id, self.queue = answer["worker_id"], answer["queue"]

    def beat(self, **stats: Any) -> httpx.Response:
        return self.http.post(f"/internal/workers/{self.id}/beat", json={"stats": {**STATS, **stats}})

    def messages(self) -> list[str]:
        """Attempt ids that wait on this host's queue, read as RQ's own worker reads them."""
        with redis.Redis.from_url(self.service.settings.redis_url) as connection:
            queue = Queue(self.queue, connection=connection, serializer=JSONSerializer)
            return [str(job.args[0]) for job in queue.jobs if job.func_name == "worker.jobs.run_attempt"]

    def take_message(self) -> str:
        """The next attempt id, removed from the queue."""

        def pop() -> str:
            with redis.Redis.from_url(self.service.settings.redis_url) as connection:
                queue = Queue(self.queue, connection=connection, serializer=JSONSerializer)
                for job in queue.jobs:
                    attempt_id = str(job.args[0])
                    job.delete()
                    return attempt_id
            return ""

        return eventually(pop)

    def try_claim(self, attempt_id: str) -> httpx.Response:
        return self.http.post(f"/internal/attempts/{attempt_id}/claim", json={"worker_id": self.id})

    def claim(self) -> dict[str, Any]:
        """Wait for a message and claim its attempt."""
        answer = self.try_claim(self.take_message())
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def beat_attempt(self, claim: dict[str, Any]) -> httpx.Response:
        return self.http.post(
            f"/internal/attempts/{claim['attempt_id']}/beat", json={"fence": claim["fence"]}
        )

    def finish(self, claim: dict[str, Any], outcome: str = "succeeded", **fields: Any) -> httpx.Response:
        body = {"fence": claim["fence"], "outcome": outcome, **fields}
        return self.http.post(f"/internal/attempts/{claim['attempt_id']}/finish", json=body)

    def log(self, claim: dict[str, Any], offset: int, data: bytes) -> httpx.Response:
        params = {"offset": offset, "fence": claim["fence"]}
        return self.http.put(f"/internal/attempts/{claim['attempt_id']}/log", params=params, content=data)

    def events(self, claim: dict[str, Any], *events: dict[str, Any]) -> httpx.Response:
        lines = "".join(json.dumps({"t": 1.0, **event}) + "\n" for event in events)
        return self.http.post(
            f"/internal/attempts/{claim['attempt_id']}/events",
            params={"offset": claim["events_acked"], "fence": claim["fence"]},
            content=lines.encode(),
        )


def post_run(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/runs", json={"stage": "tokenizer", **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def run_of(service: Service, run_id: str) -> dict[str, Any]:
    return dict(service.client.get(f"/runs/{run_id}").raise_for_status().json())


def until(service: Service, run_id: str, *states: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """The run once it is in one of `states`."""

    def look() -> dict[str, Any] | None:
        run = run_of(service, run_id)
        return run if run["state"] in states else None

    found = eventually(look, timeout_s)
    assert found is not None
    return found


async def store_checkpoint(
    service: Service,
    run_id: str,
    stage: str,
    path: str,
    *,
    step: int = 0,
    model: bool = False,
    **metrics: float,
) -> None:
    """What a checkpoint event leaves in the database."""
    from server.db import Database
    from server.ids import new_id
    from server.models import Checkpoint

    db = Database(service.settings.sqlalchemy_url)
    try:
        async with db.write() as session:
            session.add(
                Checkpoint(
                    id=new_id("c"), run_id=run_id, stage=stage, step=step, path=path, bytes=1,
                    sha256="0" * 64,
                    metrics=metrics, model_config_={"depth": 2} if model else None,
                )
            )  # fmt: skip
    finally:
        await db.close()
