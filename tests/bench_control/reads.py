"""What the dashboard asks for: small reads beside ingest, charts of long series, a page of many runs."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from pathlib import Path

import orjson
from sqlalchemy import insert

from server.db import Database
from server.models import MetricBlock, MetricHead
from server.telemetry.blocks import Columns, pack
from tests.bench_control.ingest import KEYS, Shipper
from tests.bench_control.load import Connection, percentile, spread
from tests.bench_control.service import Server, a_run, database

STEPS = 100_000


def beside_ingest(kind: str, home: Path, seconds: float) -> tuple[float, float]:
    """(p50, p99) in ms of 100 reads a second while 2,000 points a second are stored."""
    with database(kind, home) as url, Server(home, url, 8) as server:
        return asyncio.run(_beside_ingest(server, seconds))


async def _beside_ingest(server: Server, seconds: float) -> tuple[float, float]:
    shippers = [await Shipper(run_id, server.port).open() for run_id in server.runs]
    for shipper in shippers:
        shipper.prepare(math.ceil(5 * seconds) + 1, lines=5)
    paths = [
        "/runs?limit=50", "/system", *(f"/runs/{run_id}" for run_id in server.runs),
        *(f"/runs/{run_id}/metrics?keys=train/loss,val/bpb" for run_id in server.runs),
        *(f"/runs/{run_id}/events?limit=50" for run_id in server.runs),
    ]  # fmt: skip
    readers = [await Connection(server.port).open() for _ in range(4)]

    def reading(http: Connection, offset: int):  # type: ignore[no-untyped-def]
        async def read(number: int) -> None:
            await http.ask("GET", paths[(4 * number + offset) % len(paths)])

        return read

    storing = asyncio.create_task(spread(40, seconds, [shipper.send for shipper in shippers]))
    found = await spread(100, seconds, [reading(http, place) for place, http in enumerate(readers)])
    await storing
    for one in (*shippers, *readers):
        one.close()
    return percentile(found, 0.5), percentile(found, 0.99)


def charts(kind: str, home: Path, rounds: int) -> float:
    """Milliseconds until 10 runs × 10 metrics × 100,000 steps are there, 1,000 points each at most."""
    with database(kind, home) as url, Server(home, url, 10) as server:
        asyncio.run(_fill(server))
        return asyncio.run(_charts(server, rounds))


async def _fill(server: Server) -> None:
    db = Database(server.settings.sqlalchemy_url)
    chance, level, values = random.Random(1), 8.0, []
    for _ in range(STEPS):
        level += chance.gauss(0, 0.02)
        values.append(level)
    steps = list(range(1, STEPS + 1))
    blocks = list(pack(Columns(steps, [1.7e9 + step / 10 for step in steps], values)))
    for run_id in server.runs:
        async with db.write() as session:
            session.add(MetricHead(run_id=run_id, keys=sorted(KEYS), packed=STEPS))
            await session.flush()
            for key in KEYS:
                rows = [
                    {"run_id": run_id, "key": key, "number": number,
                     **{name: getattr(block, name) for name in block.__slots__}}
                    for number, block in enumerate(blocks)
                ]  # fmt: skip
                await session.execute(insert(MetricBlock), rows)
    await db.close()


async def _charts(server: Server, rounds: int) -> float:
    readers = [await Connection(server.port).open() for _ in range(6)]  # as many as a browser opens
    took = []
    for _ in range(rounds + 1):
        waiting = list(server.runs)

        async def read(http: Connection, waiting: list[str]) -> int:
            points = 0
            while waiting:
                found = orjson.loads(await http.ask("GET", f"/runs/{waiting.pop()}/metrics?max_points=1000"))
                points += sum(len(series["x"]) for series in found["series"])
            return points

        started = time.perf_counter()
        points = sum(await asyncio.gather(*(read(http, waiting) for http in readers)))
        took.append(1000 * (time.perf_counter() - started))
        assert 50_000 <= points <= 100_000, points
    for http in readers:
        http.close()
    return statistics.median(took[1:])


def list_page(kind: str, home: Path, runs: int = 10_000) -> tuple[float, float]:
    """(p50, p99) in ms of a page of 50 of that many runs: the first, one further down, one by state."""
    with database(kind, home) as url, Server(home, url) as server:
        return asyncio.run(_list_page(server, runs))


async def _list_page(server: Server, runs: int) -> tuple[float, float]:
    db = Database(server.settings.sqlalchemy_url)
    states = ("succeeded", "failed", "cancelled")
    async with db.write() as session:
        session.add_all(a_run(f"r{number:09d}", states[number % 3], number) for number in range(runs))
        await session.flush()
    await db.close()
    http = await Connection(server.port).open()
    page = orjson.loads(await http.ask("GET", "/runs?limit=200"))
    paths = ("/runs?limit=50", f"/runs?limit=50&cursor={page['next_cursor']}", "/runs?limit=50&state=failed")
    took = []
    for number in range(90):
        started = time.perf_counter()
        found = orjson.loads(await http.ask("GET", paths[number % 3]))
        took.append(1000 * (time.perf_counter() - started))
        assert len(found["items"]) == 50
    http.close()
    return percentile(took[3:], 0.5), percentile(took[3:], 0.99)
