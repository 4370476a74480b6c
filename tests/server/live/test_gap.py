"""Readers who ask for what is not there are told so, and slow ones are cut and miss nothing."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from server.db import Database
from server.live import routes
from server.models import Run
from tests.server.fake_worker import FakeWorker
from tests.server.live.test_stream import frames, url
from tests.server.telemetry.test_ingest import Shipping, begin, metric
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def shipping(service: Service) -> Shipping:
    return begin(service, FakeWorker(service))


async def forget(shipping: Shipping, **starts: int) -> None:
    """As if retention had been here; tests/server/telemetry/test_retention.py lets it come."""
    db = Database(shipping.service.settings.sqlalchemy_url)
    async with db.write() as session:
        run = await session.get(Run, shipping.run_id)
        assert run is not None
        for name, value in starts.items():
            setattr(run, name, value)
    await db.close()


def sse(shipping: Shipping, **params: Any) -> list[dict[str, Any]]:
    answer = shipping.service.client.get(f"/runs/{shipping.run_id}/stream", params=params)
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


async def test_a_cursor_before_what_is_kept_gets_a_gap_and_then_the_rest(shipping: Shipping) -> None:
    shipping.log(b"old new\n", 0)
    shipping.events(metric(1, train__loss=3.0), metric(2, train__loss=2.0), metric(3, train__loss=1.0))
    await forget(shipping, log_start=4, metric_start=2)
    shipping.worker.finish(shipping.claim)
    for after, expected in ((0, True), (1, True), (4, False)):
        query = f"?channels=log,metric&after_log={after}&after_metric=2"
        with connect(url(shipping, query)) as reader:
            seen = [frame for frame in frames(reader) if frame.get("channel") == "log"]
        gap = {"op": "gap", "channel": "log", "from": after, "to": 4, "reason": "expired"}
        assert (seen[0] == gap) is expected
        assert seen[-1]["items"] == [{"offset": 4, "text": "new\n"}]
    over_sse = [frame for frame in sse(shipping, channels="metric") if frame["op"] != "end"]
    assert over_sse[0] == {"op": "gap", "channel": "metric", "from": 0, "to": 2, "reason": "expired"}
    assert [item["step"] for item in over_sse[1]["items"]] == [3]
    page = shipping.get(f"/runs/{shipping.run_id}/logs")
    assert (page["first"], page["items"]) == (4, [{"offset": 4, "text": "new\n"}])
    text = shipping.service.client.get(f"/runs/{shipping.run_id}/logs", params={"format": "text"})
    assert text.text == "new\n"


def test_a_cursor_beyond_the_end_is_told_where_the_end_is(shipping: Shipping) -> None:
    """A client that knows the run from before a restored backup."""
    shipping.log(b"abc", 0)
    shipping.events(metric(1, train__loss=3.0))
    with connect(url(shipping, "?channels=log,metric&after_log=999&after_metric=999")) as reader:
        assert json.loads(reader.recv(10))["op"] == "welcome"
        gaps = [json.loads(reader.recv(10)) for _ in range(2)]
        assert [(g["op"], g["channel"], g["from"], g["to"], g["reason"]) for g in gaps] == [
            ("gap", "log", 999, 3, "ahead"), ("gap", "metric", 999, 1, "ahead"),
        ]  # fmt: skip
        shipping.log(b"def", 3)
        batch = json.loads(reader.recv(10))
        assert (batch["first"], batch["items"][0]["text"]) == (3, "def")


@sqlite_only
def test_a_slow_reader_is_cut_with_4408_and_comes_back_for_the_rest(
    shipping: Shipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "SEND_S", 0.3)
    piece = b"x" * 1023 * 1024 + b"\n"
    for number in range(8):
        assert shipping.log(piece, number * len(piece)).status_code == 200
    shipping.worker.finish(shipping.claim)
    with slow(url(shipping, "?channels=log")) as reader:
        eventually(lambda: cut(shipping), timeout_s=30)  # it reads nothing, and its buffer is small
        batches, after = read(reader)
    assert reader.close_code == 4408
    assert after < 8 * len(piece)
    with connect(url(shipping, f"?channels=log&after_log={after}"), max_size=None) as reader:
        rest, last = read(reader)
    assert last == 8 * len(piece)
    assert "".join(batches + rest) == (piece * 8).decode()


@sqlite_only
def test_a_slow_reader_of_events_is_cut_as_well(shipping: Shipping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "SEND_S", 0.3)
    piece = b"x" * 1023 * 1024 + b"\n"
    for number in range(8):
        assert shipping.log(piece, number * len(piece)).status_code == 200
    request = f"GET /runs/{shipping.run_id}/stream?channels=log HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with _narrow(shipping.service.base_url.removeprefix("http://")) as plain:
        plain.sendall(request.encode())
        eventually(lambda: cut(shipping), timeout_s=30)  # the run goes on, and nothing is read
        plain.settimeout(20)
        taken = 0
        while data := plain.recv(MIB):
            taken += len(data)
        assert 0 < taken < 8 * len(piece), "the server hung up before the end"


MIB = 1024 * 1024


def _narrow(where: str) -> socket.socket:
    """A plain connection with a small buffer on this side."""
    host, port = where.split(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    plain.connect((host, int(port)))
    return plain


def slow(address: str) -> ClientConnection:
    """A connection with small buffers on this side."""
    plain = _narrow(address.removeprefix("ws://").partition("/")[0])
    return connect(address, sock=plain, max_queue=1, compression=None)


def cut(shipping: Shipping) -> bool:
    return "nanochat_slow_readers_cut_total 1.0" in shipping.service.client.get("/metrics").text


def read(reader: ClientConnection) -> tuple[list[str], int]:
    """The text of all batches, and the cursor after the last one."""
    texts, after = [], 0
    try:
        while True:
            frame = json.loads(reader.recv(timeout=20))
            if frame["op"] == "batch":
                texts += [item["text"] for item in frame["items"]]
                after = frame["last"]
    except ConnectionClosed:
        return texts, after
