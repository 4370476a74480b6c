"""The transports under both clients; nothing else of this package knows httpx.

A request that may be repeated (reading, and creating with an idempotency key) is sent again when the
connection cannot be made or breaks; the service's own answers are never retried.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from nanochat_client.errors import ConnectionFailed, from_answer
from nanochat_client.operations import Operation

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_S = 5.0
RETRY_AFTER_S = (0.1, 0.4)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Address:
    """Where the service is and the key for it; absent ones come from NANOCHAT_URL and NANOCHAT_API_KEY."""

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self.url = (url or os.environ.get("NANOCHAT_URL") or DEFAULT_URL).rstrip("/")
        self.api_key = api_key or os.environ.get("NANOCHAT_API_KEY") or None
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConnectionFailed(
                f"{self.url!r} is no address of a service; it looks like {DEFAULT_URL}", code="invalid_url"
            )
        self.is_local = parts.hostname in LOOPBACK

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def settings(self, timeout_s: float) -> dict[str, Any]:
        """Arguments of httpx's clients. A proxy of the environment is not asked for this machine."""
        return {
            "base_url": self.url,
            "headers": self.headers,
            "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S),
            "trust_env": not self.is_local,
        }

    def failed(self, error: Exception) -> ConnectionFailed:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return ConnectionFailed(f"{self.url} did not answer in time", code="timeout")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ConnectionFailed(
                f"nothing answers at {self.url}: start it with `nanochat up`, or point NANOCHAT_URL at it",
                code="unreachable",
            )
        return ConnectionFailed(f"the connection to {self.url} broke: {error}", code="broken_connection")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Errors of the transport as this package's own."""
        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self.failed(error) from None


def _arguments(operation: Operation[Any]) -> dict[str, Any]:
    return {"params": operation.params, "json": operation.body, "headers": operation.headers}


def _read(operation: Operation[T], answer: httpx.Response) -> T:
    if not answer.is_success:
        raise from_answer(answer.status_code, answer.content, answer.headers.get("x-request-id"))
    return operation.parse(answer.content)


class Transport:
    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._http = httpx.Client(**address.settings(timeout_s))

    def send(self, operation: Operation[T]) -> T:
        waits = list(RETRY_AFTER_S) if operation.repeatable else []
        while True:
            try:
                answer = self._http.request(operation.method, operation.path, **_arguments(operation))
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if not waits:
                    raise self.address.failed(error) from None
                time.sleep(waits.pop(0))
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise self.address.failed(error) from None
            else:
                return _read(operation, answer)

    def lines(self, operation: Operation[Any]) -> Iterator[str]:
        """Lines of a streamed answer, as they come."""
        with (
            self.address.guard(),
            self._http.stream(operation.method, operation.path, **_arguments(operation)) as answer,
        ):
            if not answer.is_success:
                answer.read()
                _read(operation, answer)
            yield from answer.iter_lines()

    def close(self) -> None:
        self._http.close()


class AsyncTransport:
    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._http = httpx.AsyncClient(**address.settings(timeout_s))

    async def send(self, operation: Operation[T]) -> T:
        waits = list(RETRY_AFTER_S) if operation.repeatable else []
        while True:
            try:
                answer = await self._http.request(operation.method, operation.path, **_arguments(operation))
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if not waits:
                    raise self.address.failed(error) from None
                await asyncio.sleep(waits.pop(0))
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise self.address.failed(error) from None
            else:
                return _read(operation, answer)

    async def lines(self, operation: Operation[Any]) -> AsyncIterator[str]:
        """Lines of a streamed answer, as they come."""
        with self.address.guard():
            async with self._http.stream(operation.method, operation.path, **_arguments(operation)) as answer:
                if not answer.is_success:
                    await answer.aread()
                    _read(operation, answer)
                async for line in answer.aiter_lines():
                    yield line

    async def close(self) -> None:
        await self._http.aclose()
