"""Server-sent events of one answer, straight over ASGI.

Whatever has arrived goes out in one write. A reader that is slow lets the answer's inbox grow up to its
bound; one that takes nothing for STALLED_S is cut off, one that leaves frees its slots at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.inference.answers import Answer
from server.inference.chunks import DONE, PING, ChunkWriter, event
from server.inference.errors import OpenAIError

log = logging.getLogger(__name__)
PING_S = 15.0
STALLED_S = 300.0


class EventStream(Response):
    """The rest of `answer` as a stream; `begun` is its `begin`, which may still wait for the model.

    A fault after the headers is an event with an `error` object, then [DONE].
    """

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, begun: asyncio.Task[None]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._answer, self._begun = answer, begun
        self._written_at = time.monotonic()
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        self._task = asyncio.create_task(self._send_all(send))
        gone = asyncio.create_task(disconnected(receive))
        self._tick()
        try:
            await asyncio.wait((self._task, gone), return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        except OSError:
            pass  # it left while we wrote
        except asyncio.CancelledError:
            if not self._task.cancelled():
                raise
            log.info("a client read nothing for %.0f s: its stream is cut off", STALLED_S)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in (self._task, gone, self._begun):
                await end(task)
            self._answer.close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await self._send_chunks(send)
        except OpenAIError as error:
            await self._write(send, event(error.body))
        await self._write(send, DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_chunks(self, send: Send) -> None:
        answer = self._answer
        while not self._begun.done():
            await asyncio.wait((self._begun,), timeout=PING_S)
            if not self._begun.done():
                await self._write(send, PING)
        self._begun.result()
        writer = ChunkWriter(answer)
        while not answer.over:
            if frames := await answer.take():
                await self._write(send, writer.write(frames))
            elif time.monotonic() - self._written_at >= PING_S:
                await self._write(send, PING)
        if answer.request.include_usage:
            await self._write(send, writer.usage())

    async def _write(self, send: Send, body: bytes) -> None:
        self._writing = True
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._written_at = time.monotonic()
        self._writing = False

    def _tick(self) -> None:
        """One timer per stream instead of one per token."""
        silent_s = time.monotonic() - self._written_at
        if self._writing and silent_s > STALLED_S and self._task is not None:
            self._task.cancel()
            return
        if not self._writing and silent_s >= PING_S:
            self._answer.wake()
        wait_s = PING_S - silent_s if silent_s < PING_S else PING_S
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel the task when it is not done, and wait for it; how it ended does not matter any more."""
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
