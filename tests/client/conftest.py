"""A relay that can be cut, both clients behind one face, and the command line in this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nanochat_client import AsyncClient, Client
from nanochat_client.cli import main
from tests.server.fake_worker import FakeWorker
from tests.services import Service


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, sqlite_template: Any, tmp_path: Any) -> str:
    """What the client sees does not depend on the database."""
    from tests import services

    return services.copy_sqlite(sqlite_template, tmp_path)


@pytest.fixture
def worker(service: Service) -> FakeWorker:
    return FakeWorker(service)


class Either:
    """Client or AsyncClient, called the same way: what is awaited or iterated is done here."""

    def __init__(self, kind: str, url: str) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        self._client: Any = AsyncClient(url) if kind == "async" else Client(url)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if self._runner is None or not callable(found):
            return found
        return _Waited(self, found)

    def wait(self, result: Any) -> Any:
        """What an awaitable gives, or an async iterator piece by piece; anything else as it is."""
        if inspect.isawaitable(result):
            return self._run(result)
        return self._iterate(result) if hasattr(result, "__aiter__") else result

    def _run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        assert self._runner is not None
        return self._runner.run(wait())

    def _iterate(self, result: Any) -> Iterator[Any]:
        iterator = aiter(result)
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._run(anext(iterator))

    def end(self) -> None:
        self.close()
        if self._runner is not None:
            self._runner.close()


class _Waited:
    """A method of AsyncClient, or an object with methods, called without `await`."""

    def __init__(self, either: Either, found: Any) -> None:
        self._either, self._found = either, found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._either.wait(self._found(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return _Waited(self._either, getattr(self._found, name))


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Either]]:
    made: list[Either] = []

    def connect(url: str) -> Either:
        made.append(Either(request.param, url))
        return made[-1]

    yield connect
    for client in made:
        client.end()


@pytest.fixture
def either(connect: Callable[[str], Either], service: Service) -> Either:
    return connect(service.base_url)


BAD_GATEWAY = "HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>"


class Relay:
    """A TCP relay to the server. `cut` closes what is open; `refuse` closes the next connections at once.

    `cut_after`: bytes passed on to clients until it cuts by itself, for each cut anew. What `cut` finds on
    its way in the kernel's buffers still arrives, megabytes of it, so it cannot cut within an answer.
    `fail` connections are answered as nginx answers for a server that is away.
    """

    def __init__(self, url: str) -> None:
        self._target = int(url.rpartition(":")[2])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted, self.refuse, self.fail = 0, 0, 0
        self.cut_after: list[int] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                self.accepted += 1
                if self.refuse:
                    self.refuse -= 1
                    here.close()
                    continue
                if self.fail:
                    self.fail -= 1
                    here.recv(65536)
                    here.sendall(BAD_GATEWAY.encode())
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._target))
                self._open += [here, there]
                threading.Thread(target=self._pump, args=(here, there, there.sendall), daemon=True).start()
                answer = functools.partial(self._answer, here)
                threading.Thread(target=self._pump, args=(there, here, answer), daemon=True).start()

    def _answer(self, client: socket.socket, data: bytes) -> None:
        client.sendall(data[: self.cut_after[0]] if self.cut_after else data)
        if self.cut_after:
            self.cut_after[0] -= len(data)
            if self.cut_after[0] <= 0:
                self.cut_after.pop(0)
                self.cut()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, send: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                send(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@pytest.fixture
def relay(service: Service) -> Iterator[Relay]:
    relay = Relay(service.base_url)
    yield relay
    relay.close()


class Cli:
    """`nanochat …` against the service: exit status, what was printed, and what was said on stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = 0
        try:
            main(argv)
        except SystemExit as left:
            status = int(left.code or 0)
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err


@pytest.fixture
def cli(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("NANOCHAT_URL", service.base_url)
    return Cli(capsys)


def put_log(worker: FakeWorker, claim: dict[str, Any], text: str) -> None:
    """Append to the attempt's log."""
    data = text.encode()
    worker.http.put(
        f"/internal/attempts/{claim['attempt_id']}/log",
        params={"offset": claim["log_acked"], "fence": claim["fence"]},
        content=data,
    ).raise_for_status()
    claim["log_acked"] += len(data)


def put_events(worker: FakeWorker, claim: dict[str, Any], *events: dict[str, Any]) -> None:
    """Append to the attempt's events."""
    claim["events_acked"] = worker.events(claim, *events).raise_for_status().json()["acked"]
