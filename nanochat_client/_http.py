"""The transports under both clients; nothing else of this package knows httpx.

A request that may be repeated (reading, and creating with an idempotency key) is sent again when the
connection cannot be made or breaks, here or behind a proxy; the service's own answers are never retried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from nanochat_client.address import CONNECT_S, Address
from nanochat_client.download import PAUSE_S, Part
from nanochat_client.errors import ApiError, ConnectionFailed, from_answer
from nanochat_client.operations.core import Operation

if TYPE_CHECKING:
    from nanochat_client.types import File
    from nanochat_client.upload import Sending

T = TypeVar("T")
RETRY_AFTER_S = (0.1, 0.4)
OUT_OF_RANGE = 416
#: what a proxy answers for a service that it cannot reach
GATEWAY = (502, 503, 504)


def settings(address: Address, timeout_s: float) -> dict[str, Any]:
    """Arguments of httpx's clients. A proxy of the environment is not asked for this machine."""
    return {
        "base_url": address.url,
        "headers": address.headers,
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S),
        "trust_env": not address.is_local,
    }


def failed(address: Address, error: Exception) -> ConnectionFailed:
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return ConnectionFailed(f"{address.url} did not answer in time", code="timeout")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return address.unreachable()
    return ConnectionFailed(f"the connection to {address.url} broke: {error}", code="broken_connection")


@contextmanager
def guard(address: Address) -> Iterator[None]:
    """Errors of the transport as this package's own."""
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise failed(address, error) from None


def _arguments(operation: Operation[Any]) -> dict[str, Any]:
    return {
        "params": operation.params,
        "json": operation.body,
        "content": operation.content,
        "headers": operation.headers,
    }


def _is_the_proxys(answer: httpx.Response) -> bool:
    """Whether the service had no say in it: its own answers have a request id."""
    return answer.status_code in GATEWAY and "x-request-id" not in answer.headers


def _read(operation: Operation[T], answer: httpx.Response) -> T:
    if not answer.is_success:
        raise from_answer(answer.status_code, answer.content, answer.headers.get("x-request-id"))
    return operation.parse(answer.content)


class Transport:
    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._http = httpx.Client(**settings(address, timeout_s))

    def send(self, operation: Operation[T]) -> T:
        waits = list(RETRY_AFTER_S) if operation.repeatable else []
        while True:
            try:
                answer = self._http.request(operation.method, operation.path, **_arguments(operation))
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if not waits:
                    raise failed(self.address, error) from None
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise failed(self.address, error) from None
            else:
                if not waits or not _is_the_proxys(answer):
                    return _read(operation, answer)
            time.sleep(waits.pop(0))

    def lines(self, operation: Operation[Any]) -> Iterator[str]:
        """Lines of a streamed answer, as they come."""
        with guard(self.address), self._stream(operation) as answer:
            if not answer.is_success:
                answer.read()
                _read(operation, answer)
            yield from answer.iter_lines()

    def fetch(self, operation: Operation[Any], part: Part) -> Path:
        """The answer's content as a file; a connection that breaks is made again from where it broke."""
        while True:
            request = replace(operation, headers={**operation.headers, **part.headers})
            try:
                with guard(self.address), self._stream(request) as answer:
                    if answer.status_code == OUT_OF_RANGE:
                        part.refused(answer.headers)
                    elif not answer.is_success:
                        answer.read()
                        _read(operation, answer)
                    else:
                        with part.opened(answer.status_code, answer.headers) as file:
                            for data in answer.iter_raw():
                                part.came(file.write(data))
                if part.is_whole():
                    return part.file
                error = ConnectionFailed("the answer ended too soon", code="broken_connection")
            except ConnectionFailed as caught:
                error = caught
            part.broke(error)
            time.sleep(PAUSE_S)

    def push(self, sending: Sending) -> File:
        """Send a file part by part; where a connection broke, the server says from where to go on."""
        while True:
            try:
                sending.took(self.send(sending.next()))
            except (ConnectionFailed, ApiError) as error:
                sending.failed(error)
            if sending.done is not None:
                return sending.done
            if sending.pause_s:
                time.sleep(sending.pause_s)

    def _stream(self, operation: Operation[Any]) -> AbstractContextManager[httpx.Response]:
        return self._http.stream(operation.method, operation.path, **_arguments(operation))

    def close(self) -> None:
        self._http.close()


class AsyncTransport:
    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._http = httpx.AsyncClient(**settings(address, timeout_s))

    async def send(self, operation: Operation[T]) -> T:
        waits = list(RETRY_AFTER_S) if operation.repeatable else []
        while True:
            try:
                answer = await self._http.request(operation.method, operation.path, **_arguments(operation))
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if not waits:
                    raise failed(self.address, error) from None
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise failed(self.address, error) from None
            else:
                if not waits or not _is_the_proxys(answer):
                    return _read(operation, answer)
            await asyncio.sleep(waits.pop(0))

    async def lines(self, operation: Operation[Any]) -> AsyncIterator[str]:
        """Lines of a streamed answer, as they come."""
        with guard(self.address):
            async with self._stream(operation) as answer:
                if not answer.is_success:
                    await answer.aread()
                    _read(operation, answer)
                async for line in answer.aiter_lines():
                    yield line

    async def fetch(self, operation: Operation[Any], part: Part) -> Path:
        """The answer's content as a file; a connection that breaks is made again from where it broke."""
        while True:
            request = replace(operation, headers={**operation.headers, **part.headers})
            try:
                with guard(self.address):
                    async with self._stream(request) as answer:
                        if answer.status_code == OUT_OF_RANGE:
                            part.refused(answer.headers)
                        elif not answer.is_success:
                            await answer.aread()
                            _read(operation, answer)
                        else:
                            with part.opened(answer.status_code, answer.headers) as file:
                                async for data in answer.aiter_raw():
                                    part.came(file.write(data))
                if part.is_whole():
                    return part.file
                error = ConnectionFailed("the answer ended too soon", code="broken_connection")
            except ConnectionFailed as caught:
                error = caught
            part.broke(error)
            await asyncio.sleep(PAUSE_S)

    async def push(self, sending: Sending) -> File:
        """Send a file part by part; where a connection broke, the server says from where to go on."""
        while True:
            try:
                sending.took(await self.send(sending.next()))
            except (ConnectionFailed, ApiError) as error:
                sending.failed(error)
            if sending.done is not None:
                return sending.done
            if sending.pause_s:
                await asyncio.sleep(sending.pause_s)

    def _stream(self, operation: Operation[Any]) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(operation.method, operation.path, **_arguments(operation))

    async def close(self) -> None:
        await self._http.aclose()
