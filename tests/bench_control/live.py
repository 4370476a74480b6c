"""From a printed line to the reader: one reader of a worker's shipping, and a thousand readers of one run."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from tests.bench_control.load import Connection, at_rate, percentile
from tests.bench_control.service import FENCE, Server, attempt_of, database
from tests.services import WORKER_TOKEN
from worker.api import Api
from worker.ship import Shipper

READERS = 1000


class Latencies:
    """Reads log frames; a line is the time at which it was printed."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self._rest = ""

    def take(self, frame: str) -> None:
        now = time.time()
        data: Any = json.loads(frame)
        if data.get("channel") != "log":
            return
        *lines, self._rest = (self._rest + "".join(item["text"] for item in data["items"])).split("\n")
        self.found += [1000 * (now - float(line)) for line in lines]


def printed_to_read(kind: str, home: Path, seconds: float, per_second: int = 100) -> tuple[float, float]:
    """(p50, p99) in ms from a line in run.log, which the worker ships, to a WebSocket client."""
    with database(kind, home) as url, Server(home, url, 1) as server:
        place = home / "attempt"
        place.mkdir(exist_ok=True)
        (place / "run.log").write_bytes(b"")
        api = Api(f"http://127.0.0.1:{server.port}", WORKER_TOKEN)
        shipper = Shipper(api, attempt_of(server.runs[0]), FENCE, place, 0, 0)
        shipper.start()
        writer = threading.Thread(target=_print, args=(place / "run.log", seconds, per_second))
        try:
            found = asyncio.run(_read_one(server, writer, round(seconds * per_second)))
        finally:
            writer.join()
            shipper.finish()
            shipper.join(20)
            api.close()
    return percentile(found, 0.5), percentile(found, 0.99)


def _print(path: Path, seconds: float, per_second: int) -> None:
    started = time.time()
    with path.open("ab", buffering=0) as file:
        for number in range(round(seconds * per_second)):
            due = started + number / per_second
            time.sleep(max(0.0, due - time.time()))
            file.write(f"{due:.6f}\n".encode())


async def _read_one(server: Server, writer: threading.Thread, lines: int) -> list[float]:
    latencies = Latencies()
    async with connect(_url(server.port, server.runs[0]), max_size=None) as socket:
        await socket.recv()
        writer.start()
        while len(latencies.found) < lines:
            latencies.take(str(await asyncio.wait_for(socket.recv(), 60)))
    return latencies.found


def _url(port: int, run_id: str) -> str:
    return f"ws://127.0.0.1:{port}/runs/{run_id}/stream?channels=log"


def many_readers(kind: str, home: Path, seconds: float, per_second: int = 20) -> tuple[float, float, float]:
    """(p50, p99) in ms over all lines of all 1,000 readers, and by how much the server's memory grew, MB."""
    with database(kind, home) as url, Server(home, url, 1) as server:
        before = server.rss()
        ready, done = multiprocessing.Semaphore(0), multiprocessing.Queue()  # type: ignore[var-annotated]
        lines = round(seconds * per_second)
        arguments = (server.port, server.runs[0], lines, ready, done)
        clients = multiprocessing.Process(target=_readers, args=arguments)
        clients.start()
        try:
            assert ready.acquire(timeout=120), "the readers did not all connect"
            asyncio.run(_write(server, seconds, per_second))
            p50, p99 = done.get(timeout=120)
            grown = (server.rss() - before) / 1e6
        finally:
            clients.terminate()
            clients.join()
    return p50, p99, grown


async def _write(server: Server, seconds: float, per_second: int) -> None:
    http = await Connection(server.port, WORKER_TOKEN).open()
    offset = 0

    async def put(_: int) -> None:
        nonlocal offset
        line = f"{time.time():.6f}\n".encode()
        path = f"/internal/attempts/{attempt_of(server.runs[0])}/log?offset={offset}&fence={FENCE}"
        await http.ask("PUT", path, line, "application/octet-stream")
        offset += len(line)

    await at_rate(per_second, seconds, put)
    http.close()


def _readers(port: int, run_id: str, lines: int, ready: Any, done: Any) -> None:
    async def read(entered: asyncio.Semaphore, latencies: Latencies) -> None:
        async with connect(
            _url(port, run_id), compression=None, ping_interval=None, open_timeout=60
        ) as socket:
            await socket.recv()
            entered.release()
            while len(latencies.found) < lines:
                latencies.take(str(await socket.recv()))

    async def run() -> None:
        entered = asyncio.Semaphore(0)
        all_of_them = [Latencies() for _ in range(READERS)]
        tasks = []
        for start in range(0, READERS, 50):
            tasks += [asyncio.create_task(read(entered, one)) for one in all_of_them[start : start + 50]]
            for _ in range(50):
                await entered.acquire()
        ready.release()
        await asyncio.gather(*tasks)
        found = [latency for one in all_of_them for latency in one.found]
        done.put((percentile(found, 0.5), percentile(found, 0.99)))

    asyncio.run(run())
