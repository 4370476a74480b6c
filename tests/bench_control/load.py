"""Open-loop load over plain sockets: a client library's own cost would be measured too.

Latency counts from the moment a request was due, not from when it was sent: a server that stalls pays for
everything that queued meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence

Call = Callable[[int], Awaitable[None]]


class Connection:
    """One keep-alive HTTP/1.1 connection to 127.0.0.1."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port = port
        self._common = f"host: 127.0.0.1:{port}\r\n"
        if token:
            self._common += f"authorization: Bearer {token}\r\n"

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 26)
        return self

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        """The answer's body. Raises RuntimeError when it is no 2xx."""
        head = f"{method} {path} HTTP/1.1\r\n{self._common}content-type: {kind}\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        if b"content-length" in headers:
            answer = await self._reader.readexactly(int(headers[b"content-length"]))
        else:
            answer = await self._chunks() if b"transfer-encoding" in headers else b""
        if not lines[0].startswith(b"http/1.1 2"):
            raise RuntimeError(f"{method} {path}: {lines[0].decode()} {answer[:300]!r}")
        return answer

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(parts)

    def close(self) -> None:
        self._writer.close()


async def at_rate(per_second: float, seconds: float, call: Call, offset: float = 0.0) -> list[float]:
    """`call(n)` one after another at fixed times. Returns every latency in ms, from the scheduled start."""
    started = time.perf_counter() + offset / per_second
    latencies = []
    for number in range(round(per_second * seconds)):
        due = started + number / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        await call(number)
        latencies.append(1000 * (time.perf_counter() - due))
    return latencies


async def spread(per_second: float, seconds: float, calls: Sequence[Call]) -> list[float]:
    """The rate shared by several callers, each in its own turn."""
    share = per_second / len(calls)
    found = await asyncio.gather(
        *(at_rate(share, seconds, call, index / len(calls)) for index, call in enumerate(calls))
    )
    return [latency for one in found for latency in one]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` 0…1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
