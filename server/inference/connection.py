"""The socket to one engine: JSON lines, and who waits for which.

Everything that arrived in one wake-up of the event loop is handled in one go; nothing here awaits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

import orjson

from server.inference.errors import OpenAIError, engine_died

log = logging.getLogger(__name__)
Frame = dict[str, Any]
#: an engine that sends more than this without a line's end is out of its mind
LONGEST_LINE = 256 * 1024 * 1024


class Receiver(Protocol):
    """What waits under a request id."""

    def push(self, frame: Frame, now: float) -> None: ...

    def fail(self, error: OpenAIError, reason: str = ...) -> None: ...


class Connection(asyncio.Protocol):
    """`on_frame` gets the frames that belong to no request (ready, stats), `on_lost` the end."""

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost
        self._receivers: dict[str, Receiver] = {}
        self._transport: asyncio.Transport | None = None
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._next_id = 0
        self.heard_at = time.monotonic()

    @property
    def waiting(self) -> int:
        """Requests and questions without their last frame."""
        return len(self._receivers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self.heard_at = now = time.monotonic()
        if b"\n" not in data:
            self._keep(data)
            return
        lines = data.split(b"\n")
        if self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest, self._rest_bytes = [], 0
        if last := lines.pop():
            self._keep(last)
        try:
            for line in lines:
                self._handle(orjson.loads(line), now)
        except (ValueError, LookupError, TypeError, AttributeError):
            log.exception("the engine sent what is no frame; closing its connection")
            self.close()

    def _handle(self, frame: Frame, now: float) -> None:
        request_id = frame.get("id")
        if request_id is None:
            self._on_frame(frame)
        elif receiver := self._receivers.get(request_id):
            receiver.push(frame, now)

    def _keep(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_bytes += len(data)
        if self._rest_bytes > LONGEST_LINE:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._on_lost()

    def open(self, receiver: Receiver) -> str:
        """A request id under which `receiver` gets its frames until `forget`."""
        if not self.waiting:
            self.heard_at = time.monotonic()  # silence counts from the first question
        self._next_id += 1
        request_id = str(self._next_id)
        self._receivers[request_id] = receiver
        return request_id

    def forget(self, request_id: str) -> None:
        self._receivers.pop(request_id, None)

    def send(self, frame: Frame) -> None:
        """Raises OpenAIError when the engine has gone."""
        if self._transport is None or self._transport.is_closing():
            raise engine_died()
        self._transport.write(orjson.dumps(frame) + b"\n")

    def fail(self, error: OpenAIError) -> None:
        """Everybody who waits is told; nobody is forgotten, they leave by themselves."""
        for receiver in list(self._receivers.values()):
            receiver.fail(error)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
