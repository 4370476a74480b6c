"""Metric points stored per second: several attempts ship their events at a fixed rate of requests."""

from __future__ import annotations

import asyncio
import json
import math
import random
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
    requests = points_per_second / POINTS
    for shipper in shippers:
        shipper.prepare(math.ceil(requests * seconds / len(shippers)) + 1)
    found = await spread(requests, seconds, [shipper.send for shipper in shippers])
    for shipper in shippers:
        shipper.close()
    return found


def rate(kind: str, home: Path, points_per_second: float, seconds: float) -> tuple[float, float, float]:
    """(p50, p99, CPU share of the server) of acknowledgements in ms at that rate, on a fresh database."""
    with database(kind, home) as url, Server(home, url, RUNS) as server:
        before = server.cpu_s()
        latencies = asyncio.run(_at(server, points_per_second, seconds))
        return percentile(latencies, 0.5), percentile(latencies, 0.99), (server.cpu_s() - before) / seconds
