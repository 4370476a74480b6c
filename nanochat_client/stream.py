"""Follow a run while it works: log, metrics and states over one WebSocket.

A connection that breaks is made again from the cursors, so nothing is lost and nothing comes twice. Ends
with `End`. Not covered: a service that is away for longer than `patience_s`; that is ConnectionFailed,
and `cursors` says where to go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from nanochat_client.address import CONNECT_S, Address
from nanochat_client.errors import Forbidden, NotFound, ServerError, Unauthorized
from nanochat_client.types import Run, RunState

CHANNELS = ("log", "metric", "state")
RETRY_S = (0.1, 0.25, 0.5, 1.0, 2.0)
MAX_FRAME_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Log:
    """Text of the log from byte `offset` on; may end in the middle of a line."""

    offset: int
    text: str


@dataclass(frozen=True)
class Metric:
    seq: int
    step: int | None
    t: float
    values: dict[str, float | None]


@dataclass(frozen=True)
class Rewind:
    """The run went back to the checkpoint of `step`: points after it are superseded."""

    step: int
    attempt: int


@dataclass(frozen=True)
class State:
    run: Run


@dataclass(frozen=True)
class End:
    state: RunState


Item = Log | Metric | Rewind | State | End


class _Following:
    """What both kinds of stream share: the cursors, and how frames are read."""

    def __init__(
        self,
        address: Address,
        run_id: str,
        channels: Sequence[str] = CHANNELS,
        after: Mapping[str, int] | None = None,
        patience_s: float = 60.0,
    ) -> None:
        if unknown := set(channels) - set(CHANNELS):
            raise ValueError(f"there is no channel {sorted(unknown)[0]!r}; there are {', '.join(CHANNELS)}")
        if not channels:
            raise ValueError(f"name a channel: {', '.join(CHANNELS)}")
        self.address, self.run_id, self.patience_s = address, run_id, patience_s
        self.cursors: dict[str, int] = {name: (after or {}).get(name, 0) for name in channels}
        """What has been read, per channel: pass it as `after` to go on."""
        self._failures = 0
        self._alone_since: float | None = None

    def _url(self) -> str:
        query = {"channels": ",".join(self.cursors)}
        query |= {f"after_{name}": str(cursor) for name, cursor in self.cursors.items()}
        base = "ws" + self.address.url.removeprefix("http")
        return f"{base}/runs/{quote(self.run_id, safe='')}/stream?{urlencode(query)}"

    def _arguments(self) -> dict[str, Any]:
        return {
            "additional_headers": self.address.headers,
            "open_timeout": CONNECT_S,
            "max_size": MAX_FRAME_BYTES,
            "proxy": None if self.address.is_local else True,
        }

    def _connected(self) -> None:
        self._failures, self._alone_since = 0, None

    def _wait_s(self, error: Exception) -> float:
        """How long to wait before the next try. Raises what no further try would change."""
        code = getattr(getattr(error, "rcvd", None), "code", None)
        status = getattr(getattr(error, "response", None), "status_code", None)
        if code == 4404 or status == 404:
            raise NotFound(f"there is no run {self.run_id!r}", status=404, code="not_found") from None
        if code == 4401 or status == 401:
            raise Unauthorized(
                "the service wants a key: set NANOCHAT_API_KEY", status=401, code="unauthorized"
            ) from None
        if code == 4403 or status == 403:
            raise Forbidden("the key does not allow this", status=403, code="forbidden") from None
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        if now - self._alone_since >= self.patience_s:
            raise self.address.unreachable("the run's trainer may well be alive") from None
        wait_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        return wait_s

    def _items(self, text: str | bytes) -> Iterator[Item]:
        """What a frame holds. The cursors move when its items have all been taken."""
        frame = json.loads(text)
        match frame:
            case {"op": "batch", "channel": "log", "items": items, "last": last}:
                for item in items:
                    yield Log(item["offset"], item["text"])
                self.cursors["log"] = last
            case {"op": "batch", "channel": "metric", "items": items}:
                for item in items:
                    self.cursors["metric"] = item["seq"]
                    yield Metric(item["seq"], item.get("step"), item["t"], item["values"])
            case {"op": "rewind", "step": step, "attempt": attempt}:
                yield Rewind(step or 0, attempt)
            case {"op": "state", "run": run, "last": last}:
                self.cursors["state"] = last
                yield State(Run.model_validate(run))
            case {"op": "end", "state": state}:
                yield End(RunState(state))
            case {"op": "error", "code": "not_found" | "deleted"}:
                raise NotFound(f"there is no run {self.run_id!r}", status=404, code="not_found")
            case {"op": "error", "code": code}:
                raise ServerError(f"the stream answered {code}", code=str(code))
            case _:
                pass  # welcome, pong, and what later servers add


class Stream(_Following):
    """Iterate over it; ends after `End`."""

    def __iter__(self) -> Iterator[Item]:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        while True:
            try:
                with connect(self._url(), **self._arguments()) as socket:
                    for text in socket:
                        self._connected()
                        for item in self._items(text):
                            yield item
                            if isinstance(item, End):
                                return
                    error: Exception = OSError("closed")
            except (WebSocketException, OSError) as caught:
                error = caught
            time.sleep(self._wait_s(error))


class AsyncStream(_Following):
    """Iterate over it with `async for`; ends after `End`."""

    async def __aiter__(self) -> AsyncIterator[Item]:
        import asyncio

        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        while True:
            try:
                async with connect(self._url(), **self._arguments()) as socket:
                    async for text in socket:
                        self._connected()
                        for item in self._items(text):
                            yield item
                            if isinstance(item, End):
                                return
                    error: Exception = OSError("closed")
            except (WebSocketException, OSError) as caught:
                error = caught
            await asyncio.sleep(self._wait_s(error))
