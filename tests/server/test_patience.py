"""Clients that send as slowly as they can: slow-loris."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server import middleware, patience
from tests.server.keys.conftest import guarded  # noqa: F401
from tests.services import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SHORT_S = 0.6


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", SHORT_S)


@pytest.fixture
def dial(service: Service) -> Iterator[Callable[..., socket.socket]]:
    """Connections to the service, or to another one."""
    made: list[socket.socket] = []

    def connected(to: Service = service) -> socket.socket:
        where = urlsplit(to.base_url)
        made.append(socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=20))
        return made[-1]

    yield connected
    for each in made:
        each.close()


def seconds_until_hung_up(connection: socket.socket, trickle: bytes) -> float:
    """Send one byte after the other until the other side is gone."""
    started = time.monotonic()
    connection.settimeout(0.1)
    for byte in trickle:
        try:
            connection.sendall(bytes([byte]))
            if connection.recv(65536) == b"":
                return time.monotonic() - started
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - started
    raise AssertionError("nobody hung up")


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "])
def test_a_head_that_does_not_end_ends_the_connection(
    dial: Callable[..., socket.socket], first: bytes
) -> None:
    connection = dial()
    connection.sendall(first)
    if not first:
        assert connection.recv(1) == b"", "who says nothing is hung up on"
        return
    assert seconds_until_hung_up(connection, b"x" * 200) < 10


def test_the_second_head_of_a_connection_is_watched_too(dial: Callable[..., socket.socket]) -> None:
    connection = dial()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert b"200 OK" in connection.recv(65536)
    assert seconds_until_hung_up(connection, b"GET /healthz HTTP/1.1\r\nX-A: " + b"x" * 200) < 10


def test_a_body_that_trickles_on_after_its_refusal_ends_the_connection(
    dial: Callable[..., socket.socket],
    guarded: Service,  # noqa: F811
) -> None:
    connection = dial(guarded)
    connection.sendall(b"POST /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n{")
    assert b"401" in connection.recv(65536)
    assert seconds_until_hung_up(connection, b"x" * 200) < 10


def test_a_body_that_takes_too_long_is_408(
    dial: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "BODY_S", SHORT_S)
    connection = dial()
    head = (
        b"POST /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 999\r\n"
    )
    connection.sendall(head + b'\r\n{"stage"')
    assert b"408" in (answer := connection.recv(65536)) and b"problem+json" in answer


def test_who_is_quick_may_stay_as_long_as_it_takes(service: Service) -> None:
    """Streams, WebSockets and connections that are used again live on."""
    with (
        httpx.Client(base_url=service.base_url, timeout=30) as client,
        connect(f"{service.ws_url}/system/stream") as watching,
    ):
        run = client.post("/runs", json={"stage": "tokenizer"}).json()
        with client.stream("GET", f"/runs/{run['id']}/stream?channels=state") as stream:
            lines = stream.iter_lines()
            assert next(lines)
            time.sleep(3 * SHORT_S)
            assert client.post(f"/runs/{run['id']}/cancel").status_code == 202
            assert any("cancelled" in line for line in lines)
        watching.send('{"op":"ping"}')
        assert any('"pong"' in str(watching.recv(timeout=10)) for _ in range(20))


def test_a_frame_that_is_too_large_is_not_read(guarded: Service) -> None:  # noqa: F811
    """Before anybody is known, too."""
    with connect(f"{guarded.ws_url}/system/stream") as socket:
        socket.send("[" * 1_000_000)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


def test_only_what_workers_ship_may_be_large(service: Service) -> None:
    large = b'{"host_id": "' + b"x" * 9_000_000 + b'"}'
    headers = {"content-type": "application/json"}
    for path in ("/internal/workers", "/internal/attempts/a/finish", "/internal/attempts/log/claim"):
        answer = service.internal.post(path, content=iter([large]), headers=headers)
        assert answer.status_code == 413, path
