"""Two real servers on one PostgreSQL: what one stores reaches the readers of the other at once."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from server.live.hub import Hub
from server.live.replicas import PAYLOAD_BYTES, Replicas
from server.settings import Settings
from tests.server.fake_worker import FakeWorker
from tests.server.telemetry.test_ingest import begin
from tests.services import WORKER_TOKEN, Service, eventually, free_port

postgresql_only = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@dataclass
class Replica:
    """A server process; looks like a `Service` to the fake worker."""

    settings: Settings
    process: subprocess.Popen[bytes]
    base_url: str

    def __post_init__(self) -> None:
        self.ws_url = self.base_url.replace("http", "ws", 1)
        self.client = httpx.Client(base_url=self.base_url, timeout=30)
        headers = {"authorization": f"Bearer {WORKER_TOKEN}"}
        self.internal = httpx.Client(base_url=self.base_url, timeout=30, headers=headers)

    def is_up(self) -> bool:
        try:
            return self.client.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        self.client.close()
        self.internal.close()


def start(settings: Settings, base_dir: Path, port: int = 0, **more: str) -> Replica:
    port = port or free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NANOCHAT_")}
    environ |= {
        "NANOCHAT_BASE_DIR": str(base_dir), "NANOCHAT_PORT": str(port), "NANOCHAT_LEASE_S": "60",
        "NANOCHAT_DATABASE_URL": settings.database_url, "NANOCHAT_REDIS_URL": settings.redis_url,
        "NANOCHAT_WORKER_TOKEN": WORKER_TOKEN, **more,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "server"], env=environ, cwd=Path.cwd())
    return Replica(settings, process, f"http://127.0.0.1:{port}")


@pytest.fixture
def replicas(settings: Settings, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    both = start(settings, tmp_path / "a"), start(settings, tmp_path / "b")
    for replica in both:
        eventually(replica.is_up, timeout_s=60, every_s=0.1)
    yield both
    for replica in both:
        if replica.process.poll() is None:
            replica.end()


def backends(settings: Settings, name: str) -> list[int]:
    with psycopg.connect(settings.database_url) as connection:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"
        )
        return [row[0] for row in connection.execute(query, (name,)).fetchall()]


class Reader:
    """Follows the log of a run from where it stopped."""

    def __init__(self) -> None:
        self.after, self.text, self.ended = 0, "", False

    def open(self, replica: Replica, run_id: str) -> ClientConnection:
        query = f"?channels=log&after_log={self.after}"
        return connect(f"{replica.ws_url}/runs/{run_id}/stream{query}")

    def take(self, socket: ClientConnection, timeout_s: float = 10) -> None:
        """One more batch, or the end."""
        while not self.ended:
            frame = json.loads(socket.recv(timeout_s))
            if frame["op"] == "batch":
                assert frame["first"] == self.after
                self.text += "".join(item["text"] for item in frame["items"])
                self.after = frame["last"]
                return
            self.ended = frame["op"] == "end"


@postgresql_only
def test_a_reader_of_one_server_follows_what_the_other_stores_and_outlives_it(
    replicas: tuple[Replica, Replica], settings: Settings
) -> None:
    here, there = replicas
    worker = FakeWorker(cast(Service, here))
    shipping = begin(cast(Service, here), worker)
    eventually(lambda: len(backends(settings, "nanochat-listen")) == 2)
    far, near, sent = Reader(), Reader(), ""

    def log(through: Replica) -> float:
        nonlocal sent
        line = f"line {len(sent)}\n"
        shipping.service, started = cast(Any, through), time.monotonic()
        assert shipping.log(line.encode(), len(sent)).status_code == 200
        sent += line
        return started

    with far.open(there, shipping.run_id) as socket, near.open(here, shipping.run_id) as near_socket:
        delays_s = []
        for _ in range(15):
            started = log(here)
            far.take(socket)
            delays_s.append(time.monotonic() - started)
            near.take(near_socket)
        assert statistics.median(delays_s) < 0.2, delays_s  # looking every second takes half a second

        # the connections are lost: a look every second goes on, and they come back
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            for pid in backends(settings, "nanochat-listen"):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        log(here)
        far.take(socket, 5)
        near.take(near_socket)
        eventually(lambda: len(backends(settings, "nanochat-listen")) == 2)

        here.end(signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            near.take(near_socket)
        for _ in range(5):
            log(there)
            far.take(socket)
        with near.open(there, shipping.run_id) as again:
            log(there)
            shipping.worker.http = there.internal
            shipping.worker.finish(shipping.claim)
            for reader, connected in ((far, socket), (near, again)):
                while not reader.ended:
                    reader.take(connected)
    assert far.text == near.text == sent and sent.count("\n") == 22


def test_on_sqlite_there_is_nobody_to_tell() -> None:
    hub = Hub()
    assert Replicas("sqlite+aiosqlite:///x.db", hub)._url is None and hub.tell_others is None


def test_many_topics_are_several_messages_none_too_long() -> None:
    replicas = Replicas("postgresql+psycopg://x", Hub())
    topics = {f"r{number:010}" for number in range(2000)}
    payloads = list(replicas._payloads(topics))
    assert max(map(len, payloads)) <= PAYLOAD_BYTES and len(payloads) > 2
    assert {topic for payload in payloads for topic in payload.split()[1:]} == topics
