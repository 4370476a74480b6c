"""Readers of one run: replay from a cursor, then live, without hole or duplicate."""

from __future__ import annotations

import json
import logging
import socket as sockets
import struct
import threading
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.server.fake_worker import FakeWorker
from tests.server.telemetry.test_ingest import Shipping, begin, metric
from tests.services import Service


def frames(socket: ClientConnection) -> Any:
    """Frames until the server has nothing more to say."""
    try:
        while True:
            yield json.loads(socket.recv(timeout=20))
    except ConnectionClosed:
        return


@pytest.fixture
def shipping(service: Service) -> Shipping:
    return begin(service, FakeWorker(service))


def url(shipping: Shipping, query: str) -> str:
    return f"{shipping.service.ws_url}/runs/{shipping.run_id}/stream{query}"


def test_what_was_is_replayed_what_comes_follows_and_the_end_is_said(shipping: Shipping) -> None:
    shipping.log(b"before\n", 0)
    shipping.events(metric(1, train__loss=3.0))
    seen: list[dict[str, Any]] = []
    with connect(url(shipping, "?channels=log,metric,state")) as socket:
        for frame in frames(socket):
            seen.append(frame)
            if frame["op"] == "batch" and frame["channel"] == "metric" and frame["items"][-1]["step"] == 1:
                shipping.log(b"after\n", 7)
                shipping.events(metric(2, train__loss=2.0))
                shipping.worker.finish(shipping.claim)
    assert seen[0]["op"] == "welcome"
    text = "".join(item["text"] for f in seen if f.get("channel") == "log" for item in f["items"])
    assert text == "before\nafter\n"
    steps = [
        item["step"] for f in seen if f["op"] == "batch" and f["channel"] == "metric" for item in f["items"]
    ]
    assert steps == [1, 2]
    states = [f["state"] for f in seen if f["op"] == "state"]
    assert states[-1] == "succeeded" and seen[-1]["op"] == "end" and seen[-1]["state"] == "succeeded"


def test_a_reader_who_comes_back_misses_nothing_and_sees_nothing_twice(shipping: Shipping) -> None:
    lines = [f"line {number} — größer\n".encode() for number in range(100)]

    def write() -> None:
        offset = 0
        for number, line in enumerate(lines):
            half = len(line) // 2
            for piece in (line[:half], line[half:]):
                shipping.log(piece, offset)
                offset += len(piece)
            shipping.worker.beat_attempt(shipping.claim)
            if number % 10 == 0:
                shipping.events(metric(number + 1, train__loss=1.0))
        shipping.worker.finish(shipping.claim)

    writer = threading.Thread(target=write)
    writer.start()
    after = {"log": 0, "metric": 0}
    text, steps, visits = "", [], 0
    ended = False
    while not ended:
        visits += 1
        query = f"?channels=log,metric&after_log={after['log']}&after_metric={after['metric']}"
        with connect(url(shipping, query)) as socket:
            for count, frame in enumerate(frames(socket)):
                if frame["op"] == "batch":
                    if frame["channel"] == "log":
                        assert frame["first"] == after["log"]
                        text += "".join(item["text"] for item in frame["items"])
                    else:
                        steps += [item["step"] for item in frame["items"]]
                    after[frame["channel"]] = frame["last"]
                ended = frame["op"] == "end"
                if count == 8:
                    break  # leave in the middle
    writer.join()
    assert text == b"".join(lines).decode()
    assert steps == list(range(1, 101, 10))
    assert visits > 2


def test_a_resumed_attempt_rewinds_its_readers(service: Service) -> None:
    worker = FakeWorker(service)
    first = begin(service, worker)
    first.events(*[metric(step, train__loss=1.0) for step in range(1, 6)])
    worker.finish(first.claim, "failed", reason="killed_signal")
    second = Shipping(service, worker, worker.claim())
    second.events({"kind": "phase", "phase": "resume", "step": 2}, metric(3, train__loss=0.5))
    worker.finish(second.claim)
    with connect(url(second, "?channels=metric")) as socket:
        seen = [f for f in frames(socket) if f.get("channel") == "metric"]
    assert [f["op"] for f in seen] == ["batch", "rewind", "batch"]
    assert (seen[1]["step"], seen[1]["attempt"]) == (2, 2)
    assert [item["step"] for item in seen[2]["items"]] == [3]


def test_channels_can_be_subscribed_to_later_and_pings_are_answered(shipping: Shipping) -> None:
    shipping.log(b"0123456789", 0)
    with connect(url(shipping, "")) as socket:
        assert json.loads(socket.recv(10))["op"] == "welcome"
        for message in ({"op": "hello", "token": None}, {"op": "ping"}, {"op": "dance"}):
            socket.send(json.dumps(message))
        assert json.loads(socket.recv(10)) == {"op": "pong"}
        assert json.loads(socket.recv(10))["code"] == "invalid_frame"
        socket.send(json.dumps({"op": "subscribe", "channel": "log", "after": 4}))
        batch = json.loads(socket.recv(10))
        assert (batch["first"], batch["last"], batch["items"][0]["text"]) == (4, 10, "456789")


def test_a_reader_that_comes_and_goes_is_no_error(
    shipping: Shipping, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = shipping.service.base_url.removeprefix("http://").split(":")
    hello = (
        f"GET /runs/{shipping.run_id}/stream HTTP/1.1\r\nhost: {host}:{port}\r\nupgrade: websocket\r\n"
        "connection: upgrade\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "sec-websocket-version: 13\r\n\r\n"
    )
    for _ in range(20):
        with sockets.create_connection((host, int(port))) as reader:
            reader.sendall(hello.encode())
            reader.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))  # gone at once
    for _ in range(5):
        shipping.get("/healthz")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_unknown_run_is_4404(service: Service) -> None:
    with connect(f"{service.ws_url}/runs/nobody/stream") as socket:
        seen = list(frames(socket))
        assert seen[0]["op"] == "error"
    assert socket.close_code == 4404


def test_server_sent_events_carry_the_same_frames(shipping: Shipping) -> None:
    shipping.log(b"hello\n", 0)
    shipping.events(metric(1, train__loss=3.0))
    shipping.worker.finish(shipping.claim)
    answer = shipping.service.client.get(f"/runs/{shipping.run_id}/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    seen = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert {f.get("channel") for f in seen} >= {"log", "metric", "state"}
    assert seen[-1]["op"] == "end"
