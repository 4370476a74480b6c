"""What a day of 1,000 runs, 200 workers and 10,000 watchers asks of one server: unit costs measured here, the
day simulated.

    python -m tests.bench_scale [--runs-per-day 1000] [--workers 200] [--watchers 10000] [--json]

Costs are CPU seconds of a real server process, so that waiting for others counts nothing. The simulated day:
runs arrive at random, twice as many at noon as on average, and last as long as a lognormal says; each takes
one worker, first come first served. A run prints a line and tells ten metrics with every step, and every
watcher gets both. Not covered: reads other than streams, checkpoints (they do not pass the server), the
database's own process when it is PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.bench_control.load import Connection
from tests.bench_control.service import FENCE, Server, attempt_of
from tests.services import WORKER_TOKEN

METRICS = 10
LINE = b"step 00100 | loss 3.141592 | lr 0.02 | dt 980 ms | tok/s 41,000 | mfu 41.2 | total 1.6 min\n"
STATS = {
    "cpu": 0.5, "cores": 2, "memory_used_bytes": 1, "memory_total_bytes": 2, "disk_free_bytes": 1,
    "disk_total_bytes": 2,
}  # fmt: skip
DAY_S = 86_400
BEAT_S = 2.0


@dataclass
class Costs:
    """CPU of the server, microseconds; memory, kilobytes."""

    beat_us: float
    events_request_us: float
    point_us: float
    log_request_us: float
    log_kilobyte_us: float
    frame_us: float
    watcher_kb: float


class Meter:
    """The server's CPU over many calls."""

    def __init__(self, server: Server, http: Connection) -> None:
        self.server, self.http = server, http
        self._events, self._log = 0, 0
        self._attempt = attempt_of(server.runs[0])
        self._step = 0

    async def each_us(self, count: int, call: Callable[[], Awaitable[Any]]) -> float:
        for _ in range(5):
            await call()
        before = self.server.cpu_s()
        for _ in range(count):
            await call()
        return 1e6 * (self.server.cpu_s() - before) / count

    async def beat(self) -> None:
        body = json.dumps({"fence": FENCE}).encode()
        await self.http.ask("POST", f"/internal/attempts/{self._attempt}/beat", body)

    async def events(self, lines: int) -> None:
        text = b""
        for _ in range(lines):
            self._step += 1
            values = {f"train/m{n}": 1.0 / (self._step + n) for n in range(METRICS)}
            text += json.dumps({"t": 1.0, "kind": "metric", "step": self._step, "values": values}).encode()
            text += b"\n"
        path = f"/internal/attempts/{self._attempt}/events?offset={self._events}&fence={FENCE}"
        answer = await self.http.ask("POST", path, text, "application/octet-stream")
        self._events = json.loads(answer)["acked"]

    async def log(self, lines: int) -> None:
        path = f"/internal/attempts/{self._attempt}/log?offset={self._log}&fence={FENCE}"
        answer = await self.http.ask("PUT", path, LINE * lines, "application/octet-stream")
        self._log = json.loads(answer)["acked"]


async def measured(server: Server, readers: int = 200) -> Costs:
    """Unit costs on this machine."""
    meter = Meter(server, await Connection(server.port, WORKER_TOKEN).open())
    beat = await meter.each_us(200, meter.beat)
    one, many = (
        await meter.each_us(200, lambda: meter.events(1)),
        await meter.each_us(20, lambda: meter.events(100)),
    )
    point = (many - one) / (99 * METRICS)
    short, long = (
        await meter.each_us(200, lambda: meter.log(1)),
        await meter.each_us(50, lambda: meter.log(1000)),
    )
    byte = (long - short) / (999 * len(LINE))
    frame, kilobytes = await _frames(server, meter, readers)
    return Costs(
        beat_us=beat,
        events_request_us=one - METRICS * point,
        point_us=point,
        log_request_us=short,
        log_kilobyte_us=1000 * byte,
        frame_us=max(0.0, frame - short) / readers,
        watcher_kb=kilobytes,
    )


async def _frames(server: Server, meter: Meter, readers: int) -> tuple[float, float]:
    """CPU of a logged line that everybody reads, microseconds; memory of a reader, kilobytes."""
    url = f"ws://127.0.0.1:{server.port}/runs/{server.runs[0]}/stream?channels=log&after_log={meter._log}"
    before = server.rss()
    sockets: list[ClientConnection] = [await connect(url, max_size=None) for _ in range(readers)]
    for socket in sockets:
        await socket.recv()
    kilobytes = (server.rss() - before) / 1000 / readers

    async def line() -> None:
        await meter.log(1)
        await asyncio.gather(*(asyncio.wait_for(socket.recv(), 60) for socket in sockets))

    cost = await meter.each_us(30, line)
    for socket in sockets:
        await socket.close()
    return cost, kilobytes


@dataclass
class Day:
    """What one simulated day looked like."""

    started: int
    busy_peak: int
    busy_mean: float
    wait_p50_min: float
    wait_p99_min: float
    waiting_peak: int


def simulate(runs_per_day: int, workers: int, use: float, seed: int = 1) -> Day:
    """One day after a day of warming up. `use`: share of the fleet that is busy on average."""
    dice = random.Random(seed)
    mean_s = use * workers * DAY_S / runs_per_day
    sigma = 1.2
    mu = math.log(mean_s) - sigma**2 / 2
    arrivals, at = [], 0.0
    while at < 2 * DAY_S:
        rate = runs_per_day / DAY_S * (1 - math.cos(2 * math.pi * at / DAY_S))  # noon: twice the average
        at += dice.expovariate(2 * runs_per_day / DAY_S)
        if dice.random() < rate / (2 * runs_per_day / DAY_S):
            arrivals.append(at)
    free = workers
    queue: list[float] = []
    waits, busy, peak_busy, peak_waiting, started = [], 0.0, 0, 0, 0
    last = float(DAY_S)
    events = [(when, 0) for when in arrivals]
    heapq.heapify(events)
    while events:
        now, kind = heapq.heappop(events)
        if now > DAY_S:
            busy += (min(now, 2 * DAY_S) - last) * (workers - free)
            last = min(now, 2 * DAY_S)
        if now >= 2 * DAY_S:
            break
        if kind == 0:
            queue.append(now)
        else:
            free += 1
        while free and queue:
            came = queue.pop(0)
            free -= 1
            if came > DAY_S:
                waits.append(now - came)
                started += 1
            heapq.heappush(events, (now + dice.lognormvariate(mu, sigma), 1))
        if now > DAY_S:
            peak_busy, peak_waiting = max(peak_busy, workers - free), max(peak_waiting, len(queue))
    waits.sort()
    return Day(
        started, peak_busy, busy / DAY_S, waits[len(waits) // 2] / 60, waits[int(len(waits) * 0.99)] / 60,
        peak_waiting,
    )  # fmt: skip


def demand(costs: Costs, busy: float, workers: int, watchers: int, step_s: float) -> dict[str, float]:
    """Cores of the server by what they are for, when so many runs train. Each step: a line, an event."""
    steps = busy / step_s
    return {
        "leases and load of workers": (busy + workers) / BEAT_S * costs.beat_us / 1e6,
        "events": steps * (costs.events_request_us + METRICS * costs.point_us) / 1e6,
        "log": steps * (costs.log_request_us + len(LINE) / 1000 * costs.log_kilobyte_us) / 1e6,
        "watchers": watchers * 2 / step_s * costs.frame_us / 1e6,
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench_scale")
    parser.add_argument("--runs-per-day", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--watchers", type=int, default=10_000)
    parser.add_argument("--use", type=float, default=0.7, help="share of the workers that are busy")
    parser.add_argument("--step-s", type=float, default=1.0, help="seconds of a training step")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nanochat-scale-") as name:
        home = Path(name)
        with Server(home, f"sqlite:///{home / 'nanochat.db'}", 1) as server:
            costs = asyncio.run(measured(server))
    day = simulate(given.runs_per_day, given.workers, given.use)
    at_peak = demand(costs, day.busy_peak, given.workers, given.watchers, given.step_s)
    if given.json:
        print(json.dumps({"costs": asdict(costs), "day": asdict(day), "cores": at_peak}, indent=1))
        return 0
    print("unit costs of the server, measured:")
    for key, value in asdict(costs).items():
        print(f"  {key:<20} {value:10.2f}")
    print("the day, simulated:")
    for key, value in asdict(day).items():
        print(f"  {key:<20} {value:10.1f}")
    print("cores of the server at the day's peak:")
    for key, value in at_peak.items():
        print(f"  {key:<28} {value:6.2f}")
    print(f"  {'together':<28} {sum(at_peak.values()):6.2f}")
    print(f"memory of the watchers: {given.watchers * costs.watcher_kb / 1e6:.2f} GB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
