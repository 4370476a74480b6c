"""Two servers on one PostgreSQL behind nginx with our example, under load: one is killed, both are restarted.

`pytest -s` prints the figures that docs/deploy.md quotes.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from nanochat_client import upload
from nanochat_client.types.keys import USER, KeyCreate
from server.keys import local
from server.settings import Settings
from tests.deploy import nginx
from tests.deploy.nginx import NAME
from tests.deploy.traffic import UPLOAD_PART_BYTES, UPLOAD_PARTS, Front, Traffic
from tests.server.fake_worker import FakeWorker
from tests.server.live.test_replicas import Replica, start
from tests.server.telemetry.test_ingest import begin
from tests.services import Service, eventually, free_port

pytestmark = [
    nginx.NEEDED,
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
    pytest.mark.timeout(300),
]
#: nginx leaves one that failed alone for 2 s
TAKEN_BACK_S = 2.5


class Pair:
    """Two servers with a port each and one base directory."""

    def __init__(self, settings: Settings, place: Path) -> None:
        self._settings, self.base = settings, place
        self._ports = (free_port(), free_port())
        self.both = [self._start(0), self._start(1)]
        for replica in self.both:
            eventually(replica.is_up, timeout_s=60, every_s=0.1)

    def _start(self, which: int) -> Replica:
        return start(
            self._settings, self.base, self._ports[which], NANOCHAT_ALLOWED_HOSTS=NAME,
            NANOCHAT_DRAIN_S="10", NANOCHAT_LOG_LEVEL="warning",
        )  # fmt: skip

    def end(self, which: int, number: int) -> float:
        """Seconds that it took."""
        started = time.monotonic()
        self.both[which].end(number)
        return time.monotonic() - started

    def begin_again(self, which: int) -> None:
        self.both[which] = self._start(which)
        eventually(self.both[which].is_up, timeout_s=60, every_s=0.1)

    def close(self) -> None:
        for replica in self.both:
            if replica.process.poll() is None:
                replica.end()


@pytest.fixture
def traffic(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Pair, Traffic]]:
    """The two servers, and what will be asked of them through the proxy."""
    monkeypatch.setattr(upload, "PART_BYTES", UPLOAD_PART_BYTES)
    key = local.create(settings, KeyCreate(name="ada", scopes=list(USER)))
    pair = Pair(settings, tmp_path / "base")
    first, second = (replica.base_url for replica in pair.both)
    with nginx.running(tmp_path, first, second) as port:
        front = Front(settings, port, key)
        worker = FakeWorker(cast(Service, front), slots=1)
        shipping = begin(cast(Service, front), worker)
        yield pair, Traffic(front, worker, shipping.claim, tmp_path)
        front.close()
    pair.close()


def listed(front: Front, path: str, **params: Any) -> list[dict[str, Any]]:
    """Every item, page by page."""
    items: list[dict[str, Any]] = []
    while True:
        page = front.client.get(path, params=params).raise_for_status().json()
        items += page["items"]
        if not page.get("next_cursor"):
            return items
        params["cursor"] = page["next_cursor"]


def check(traffic: Traffic, base: Path) -> None:
    """Nothing that was acknowledged is lost, nothing came twice, and everybody has seen all of it."""
    worker, front = traffic.worker, traffic.front
    steps = list(range(1, worker.step + 1))
    series = front.client.get(f"/runs/{traffic.run_id}/metrics", params={"max_points": 10_000}).json()
    assert [one["x"] for one in series["series"]] == [steps]
    log = front.client.get(f"/runs/{traffic.run_id}/logs", params={"format": "text"}).text
    assert log == worker.log and log.count("\n") == worker.step
    for follower in traffic.followers:
        assert follower.steps == steps and follower.text == log and follower.ended
    assert traffic.created and all(len(ids) == 1 for ids in traffic.created), "two answers, one run"
    names = [run["name"] for run in listed(front, "/runs", tag="load", limit=200)]
    assert sorted(names) == sorted(f"load {number}" for number in range(len(traffic.created)))
    sent, file = traffic.uploader, traffic.uploader.file
    assert file is not None and sent.steps[-1] == file.size and len(sent.steps) > UPLOAD_PARTS / 2
    assert (base / file.path).read_bytes() == sent.source.read_bytes()


async def test_a_server_that_is_killed_under_load_costs_its_own_requests_and_nothing_that_was_stored(
    traffic: tuple[Pair, Traffic],
) -> None:
    pair, load = traffic
    async with load:
        await asyncio.sleep(8)
        await asyncio.to_thread(pair.end, 0, signal.SIGKILL)
        await asyncio.sleep(5)
        await asyncio.to_thread(pair.begin_again, 0)
        await asyncio.sleep(7)
    figures = load.figures
    print(f"\nkilled: {figures}")
    check(load, pair.base)
    assert figures.breaks >= 10, "its followers had to come back"
    assert figures.failed_reads <= figures.reads / 100
    assert figures.failed_creations <= 4 and figures.failed_shipments <= 4, "those that it had in hand"
    assert figures.longest_pause_s < 20


async def test_servers_that_are_restarted_one_after_the_other_under_load_fail_no_request(
    traffic: tuple[Pair, Traffic],
) -> None:
    pair, load = traffic
    took_s = []
    async with load:
        await asyncio.sleep(5)
        for which in (0, 1):
            took_s.append(await asyncio.to_thread(pair.end, which, signal.SIGTERM))
            await asyncio.to_thread(pair.begin_again, which)
            await asyncio.sleep(TAKEN_BACK_S)
        await asyncio.sleep(2)
    figures = load.figures
    print(f"\nrestarted (left within {max(took_s):.1f} s): {figures}")
    check(load, pair.base)
    assert (figures.failed_reads, figures.failed_creations, figures.failed_shipments) == (0, 0, 0)
    assert figures.breaks >= 50 and figures.longest_pause_s < 20
