"""Metric points stored per second: several attempts ship their events at a fixed rate of requests."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench_control.load import Connection, percentile, spread
from tests.bench_control.service import FENCE, Server, attempt_of, database
from tests.services import WORKER_TOKEN

KEYS = (
    "train/loss", "train/grad_norm", "train/lrm", "train/dt_ms", "train/tok_per_sec",
    "train/mfu", "train/tokens", "val/bpb", "core/metric", "mem/peak_bytes",
)  # fmt: skip
LINES = 100
POINTS = LINES * len(KEYS)
RUNS = 8
#: as often as a worker ships what has come (worker/ship.py)
SHIPS_PER_S = 10
ACK_P99_MS = 100.0


@dataclass
class Shipper:
    """One attempt's worker: sends events of `LINES` steps a request, as `worker.ship` does."""

    run_id: str
    port: int
    step: int = 0
    offset: int = 0
    bodies: list[bytes] = field(default_factory=list)

    async def open(self) -> Shipper:
        self._http = await Connection(self.port, WORKER_TOKEN).open()
        return self

    def prepare(self, requests: int, lines: int = LINES) -> None:
        """Make the bodies beforehand: the load must not wait for its own JSON."""
        for _ in range(requests):
            self.bodies.append(event_lines(self.step + 1, lines))
            self.step += lines
        self.bodies.reverse()

    async def send(self, _: int = 0) -> None:
        body = self.bodies.pop()
        path = f"/internal/attempts/{attempt_of(self.run_id)}/events?offset={self.offset}&fence={FENCE}"
        answer = await self._http.ask("POST", path, body, "application/octet-stream")
        self.offset += len(body)
        assert json.loads(answer)["acked"] == self.offset, answer

    def close(self) -> None:
        self._http.close()


def event_lines(first_step: int, count: int) -> bytes:
    """What a trainer writes for `count` steps: ten values each."""
    lines = []
    for step in range(first_step, first_step + count):
        chance = random.Random(step)
        values = {key: round(chance.gauss(3.0, 1.0) * (1 + math.exp(-step / 1000)), 6) for key in KEYS}
        lines.append(json.dumps({"t": 1.7e9 + step / 10, "kind": "metric", "step": step, "values": values}))
    return ("\n".join(lines) + "\n").encode()


async def _at(server: Server, points_per_second: float, seconds: float) -> list[float]:
    shippers = [await Shipper(run_id, server.port).open() for run_id in server.runs]
    requests = RUNS * SHIPS_PER_S
    lines = max(1, round(points_per_second / requests / len(KEYS)))
    for shipper in shippers:
        shipper.prepare(math.ceil(SHIPS_PER_S * seconds) + 1, lines)
    found = await spread(requests, seconds, [shipper.send for shipper in shippers])
    for shipper in shippers:
        shipper.close()
    return found


def held(kind: str, home: Path, rates: Sequence[int], seconds: float) -> tuple[int, float]:
    """The highest of `rates` (points a second, rising) at which 99 % of requests are acknowledged in time.

    And the 99th percentile there, ms; (0, that of the lowest rate) when none is held. Fresh database.
    """
    best: tuple[int, float] = (0, math.nan)
    with database(kind, home) as url:
        for rate in rates:
            with Server(home, url, RUNS) as server:
                p99 = percentile(asyncio.run(_at(server, rate, seconds)), 0.99)
                server.clear()
            if p99 > ACK_P99_MS:
                return best if best[0] else (0, p99)
            best = (rate, p99)
    return best


def closed_loop(server: Server, requests: int) -> tuple[float, float]:
    """(points a second, p50 in ms) of one client that sends 1,000 points and waits, as log-batch does."""

    async def run() -> list[float]:
        shipper = await Shipper(server.runs[0], server.port).open()
        shipper.prepare(requests)
        took = []
        for _ in range(requests):
            started = time.perf_counter()
            await shipper.send()
            took.append(1000 * (time.perf_counter() - started))
        shipper.close()
        return took

    took = asyncio.run(run())
    return POINTS * requests / (sum(took) / 1000), percentile(took, 0.5)
