"""What a service behind a proxy has to do at the same time: a worker ships, people follow,
read, create and upload.

Reads and creations come at fixed times, whatever became of those before (open loop). Nothing here repeats a
request that fails unseen: a read is sent once, and what is sent again is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nanochat_client import Client
from nanochat_client.address import Address
from nanochat_client.stream import AsyncStream, End, Log, Metric
from nanochat_client.types import Beat, File, Finish, HostStats
from server.settings import Settings
from tests.bench_control.load import percentile
from tests.server.fake_worker import STATS, FakeWorker
from tests.server.files.uploads import conversations
from tests.services import WORKER_TOKEN
from worker.api import Api, Away, insist

TICKS, READS, CREATIONS = 5, 25, 4  # a second
FOLLOWERS = 50
#: an upload that takes as long as the rest
UPLOAD_PARTS, UPLOAD_PART_BYTES, UPLOAD_PAUSE_S = 100, 64 * 1024, 0.2
GATEWAY = (502, 503, 504)


class Front:
    """The service through its proxy; looks like a `Service` to the fake worker."""

    def __init__(self, settings: Settings, port: int, key: str) -> None:
        self.settings, self.key, self.base_url = settings, key, f"http://127.0.0.1:{port}"
        self.client = self._client(key)
        self.internal = self._client(WORKER_TOKEN)

    def _client(self, bearer: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {bearer}"}
        return httpx.Client(base_url=self.base_url, timeout=30, headers=headers)

    def close(self) -> None:
        self.client.close()
        self.internal.close()


@dataclass
class Figures:
    """What happened."""

    reads: int = 0
    failed_reads: int = 0
    reads_ms: list[float] = field(default_factory=list)
    creations: int = 0
    failed_creations: int = 0
    shipments: int = 0
    failed_shipments: int = 0
    longest_shipment_s: float = 0.0
    breaks: int = 0
    """Followers' connections that ended."""
    longest_pause_s: float = 0.0
    """Between two steps that a follower saw; without trouble it is a tick."""

    def __str__(self) -> str:
        return (
            f"{self.reads} reads, {self.failed_reads} failed, p50 {percentile(self.reads_ms, 0.5):.0f} ms, "
            f"p99 {percentile(self.reads_ms, 0.99):.0f} ms, longest {max(self.reads_ms):.0f} ms; "
            f"{self.creations} creations sent, {self.failed_creations} failed and sent again; "
            f"{self.shipments} shipments, {self.failed_shipments} sent again, "
            f"longest {self.longest_shipment_s:.2f} s; "
            f"{FOLLOWERS} followers, {self.breaks} broken connections, "
            f"longest pause {self.longest_pause_s:.2f} s"
        )


@dataclass
class Follower:
    """Somebody who watches a run through the SDK, and all that they saw."""

    steps: list[int | None] = field(default_factory=list)
    text: str = ""
    ended: bool = False


class CountingStream(AsyncStream):
    """The SDK's, with its broken connections counted."""

    breaks = 0

    def _wait_s(self, error: Exception) -> float:
        self.breaks += 1
        return super()._wait_s(error)


class Worker(threading.Thread):
    """Ships a metric event and a line of log every tick, as a worker does: what is not acknowledged again."""

    def __init__(self, front: Front, worker: FakeWorker, claim: dict[str, Any], figures: Figures) -> None:
        super().__init__(daemon=True)
        self._api, self._figures = Api(front.base_url, WORKER_TOKEN), figures
        self._worker_id, self._attempt, self._fence = worker.id, claim["attempt_id"], claim["fence"]
        self._events, self._acked = b"", {"events": 0, "log": 0}
        self._asked_to_end = threading.Event()
        self.log = ""
        self.step = 0
        """The newest one that the service has acknowledged."""

    def run(self) -> None:
        started = time.monotonic()
        for tick in itertools.count(1):
            if self._asked_to_end.wait(max(0.0, started + tick / TICKS - time.monotonic())):
                break
            event = {"t": time.time(), "kind": "metric", "step": tick, "values": {"train/loss": 1 / tick}}
            self._events += json.dumps(event).encode() + b"\n"
            self.log += f"step {tick}\n"
            self._ship("events", self._events)
            self._ship("log", self.log.encode())
            self.step = tick
            if tick % (2 * TICKS) == 0:
                self._send(lambda: self._api.report(self._worker_id, HostStats(**STATS)))
                self._send(lambda: self._api.beat(self._attempt, Beat(fence=self._fence)))
        insist(lambda: self._api.finish(self._attempt, Finish(fence=self._fence, outcome="succeeded")))
        self._api.close()

    def _ship(self, kind: str, data: bytes) -> None:
        offset = self._acked[kind]
        self._acked[kind] = self._send(
            lambda: self._api.ship(self._attempt, self._fence, kind, offset, data[offset:])
        )
        assert self._acked[kind] == len(data)

    def _send(self, call: Callable[[], Any]) -> Any:
        started = time.monotonic()
        while True:
            self._figures.shipments += 1
            try:
                answer = call()
            except Away:
                self._figures.failed_shipments += 1
                time.sleep(0.05)
                continue
            longest = max(self._figures.longest_shipment_s, time.monotonic() - started)
            self._figures.longest_shipment_s = longest
            return answer

    def end(self) -> None:
        self._asked_to_end.set()
        self.join(60)
        assert not self.is_alive()


class Uploader(threading.Thread):
    """Somebody who uploads a file with the SDK, slowly, in many parts."""

    def __init__(self, front: Front, place: Path) -> None:
        super().__init__(daemon=True)
        self._client = Client(front.base_url, front.key)
        self.source = place / "slow.jsonl"
        self.source.write_bytes(conversations(UPLOAD_PARTS * UPLOAD_PART_BYTES))
        self.file: File | None = None
        self.steps: list[int] = []
        """How far it was, after each part."""

    def run(self) -> None:
        self.file = self._client.files.upload(self.source, progress=self._part_came)

    def _part_came(self, here: int, whole: int) -> None:
        self.steps.append(here)
        time.sleep(UPLOAD_PAUSE_S)

    def end(self) -> None:
        self.join(120)
        self._client.close()
        assert self.file is not None and self.file.state == "ready", "the upload has ended well"


class Traffic:
    """`async with Traffic(…)`: from the first request until the run has ended and everybody has seen it."""

    def __init__(self, front: Front, worker: FakeWorker, claim: dict[str, Any], place: Path) -> None:
        self.front, self.run_id, self.figures = front, str(claim["run_id"]), Figures()
        self.uploader = Uploader(front, place)
        self.worker = Worker(front, worker, claim, self.figures)
        self.followers = [Follower() for _ in range(FOLLOWERS)]
        self.created: list[set[str]] = []
        """For each creation, which was sent twice at once, the ids that were answered."""
        self._over = False

    async def __aenter__(self) -> Traffic:
        headers = {"authorization": f"Bearer {self.front.key}"}
        self._http = httpx.AsyncClient(base_url=self.front.base_url, headers=headers, timeout=30)
        self._watching = [asyncio.create_task(self._follow(follower)) for follower in self.followers]
        self.worker.start()
        self.uploader.start()
        self._asking = [
            asyncio.create_task(self._at_rate(READS, self._read)),
            asyncio.create_task(self._at_rate(CREATIONS / 2, self._create)),
        ]
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._over = True
        await asyncio.gather(*self._asking)
        await asyncio.to_thread(self.uploader.end)
        await asyncio.to_thread(self.worker.end)
        async with asyncio.timeout(60):
            await asyncio.gather(*self._watching)
        await self._http.aclose()

    async def _at_rate(self, per_second: float, call: Callable[[int, float], Any]) -> None:
        started, sent = time.monotonic(), []
        for number in itertools.count():
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._over:
                break
            sent.append(asyncio.create_task(call(number, due)))
        await asyncio.gather(*sent)

    async def _read(self, number: int, due: float) -> None:
        run = f"/runs/{self.run_id}"
        paths = (run, "/runs?limit=20", f"{run}/metrics?max_points=200", f"{run}/logs?limit=50", "/system")
        self.figures.reads += 1
        try:
            answer = await self._http.get(paths[number % len(paths)])
        except httpx.TransportError:
            self.figures.failed_reads += 1
            return
        self.figures.failed_reads += not answer.is_success
        self.figures.reads_ms.append(1000 * (time.monotonic() - due))

    async def _create(self, number: int, due: float) -> None:
        self.created.append(set(await asyncio.gather(self._post(number), self._post(number))))

    async def _post(self, number: int) -> str:
        """The id of the run that was created; sent until there is an answer of the service."""
        body = {"stage": "tokenizer", "name": f"load {number}", "tags": ["load"]}
        while True:
            self.figures.creations += 1
            try:
                answer = await self._http.post(
                    "/runs", json=body, headers={"idempotency-key": f"load-{number}"}
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code not in GATEWAY:
                assert answer.status_code == 201, answer.text
                return str(answer.json()["id"])
            self.figures.failed_creations += 1
            await asyncio.sleep(0.1)

    async def _follow(self, follower: Follower) -> None:
        address = Address(self.front.base_url, self.front.key)
        stream = CountingStream(address, self.run_id, ("log", "metric"))
        seen = None
        async for item in stream:
            match item:
                case Metric(step=step):
                    now = time.monotonic()
                    pause_s = 0.0 if seen is None else now - seen
                    self.figures.longest_pause_s = max(self.figures.longest_pause_s, pause_s)
                    seen = now
                    follower.steps.append(step)
                case Log(text=text):
                    follower.text += text
                case End():
                    follower.ended = True
        self.figures.breaks += stream.breaks
