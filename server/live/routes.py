"""Live streams of a run: WebSocket, and server-sent events for clients that only read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from server.app_version import VERSION
from server.deps import Read, ServicesDep, services
from server.live.stream import CHANNELS, Frame, RunStream
from server.problems import NotFound
from server.runs import repository as runs

router = APIRouter(tags=["live"])
#: a reader that takes longer than this for one frame is cut off; its socket holds all that is buffered
SEND_S = 10.0
PING_S = 15.0
#: what sending to a reader that has gone raises
LEFT = (WebSocketDisconnect, RuntimeError)
MAX_CURSOR = 2**62
Cursor = Annotated[int, Query(ge=0, le=MAX_CURSOR)]


@router.websocket("/runs/{run_id}/stream")
async def stream(socket: WebSocket, run_id: str) -> None:
    """Frames `welcome`, `batch`, `gap`, `rewind`, `state`, `end`, `error`; come back with `after`.

    A reader that takes too long is closed with 4408. It misses nothing: what it asks for with `after` is
    there, or a `gap` says from where on.
    """
    here = services(socket)
    await socket.accept()
    try:
        async with here.db.read() as session:
            await runs.get(session, run_id)
    except NotFound:
        await socket.send_json({"op": "error", "code": "not_found"})
        await socket.close(4404)
        return
    cursors = _cursors(dict(socket.query_params))
    live = RunStream(here.db, here.hub, run_id, cursors)
    try:
        await _send(socket, {"op": "welcome", "version": VERSION, "run": run_id, "channels": list(CHANNELS)})
    except (*LEFT, TimeoutError):  # it came and went
        return
    reader = asyncio.create_task(_listen(socket, live))
    writer = asyncio.create_task(_write(socket, live))
    done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
    for task in (reader, writer):
        task.cancel()
    ended = await asyncio.gather(reader, writer, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, (*LEFT, TimeoutError)):
            raise error
    slow = any(isinstance(error, TimeoutError) for error in ended)
    if slow:
        socket.app.state.metrics.slow_readers.inc()
    if slow or (writer in done and reader not in done):
        with contextlib.suppress(*LEFT):
            await socket.close(4408 if slow else 1000)


async def _write(socket: WebSocket, live: RunStream) -> None:
    async for frame in live.frames():
        if frame is not None:
            await _send(socket, frame)


async def _send(socket: WebSocket, frame: Frame | str) -> None:
    text = frame if isinstance(frame, str) else orjson.dumps(frame).decode()
    async with asyncio.timeout(SEND_S):
        await socket.send_text(text)


async def _listen(socket: WebSocket, live: RunStream) -> None:
    """Subscriptions and pings; returns when the reader has gone."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            try:
                frame: Any = orjson.loads(await socket.receive_text())
            except (orjson.JSONDecodeError, KeyError):
                frame = None
            match frame:
                case {"op": "ping"}:
                    await _send(socket, {"op": "pong"})
                case {"op": "hello"}:
                    pass  # the service is open on loopback; there is nothing to check yet
                case {"op": "subscribe", "channel": str(channel)} if channel in CHANNELS:
                    live.cursors[channel] = _cursor(frame.get("after"))
                    live.hub.notify(live.run_id, here_only=True)
                case _:
                    await _send(socket, {"op": "error", "code": "invalid_frame"})


@router.get("/runs/{run_id}/stream", response_class=StreamingResponse)
async def events(
    run_id: str,
    request: Request,
    session: Read,
    here: ServicesDep,
    channels: Annotated[str, Query(max_length=64)] = "log,metric,state",
    after_log: Cursor = 0,
    after_metric: Cursor = 0,
    after_state: Cursor = 0,
) -> StreamingResponse:
    """The same frames as server-sent events, one per `data:` line.

    A reader that takes too long is cut off; it comes back with `after_…` and misses nothing.
    """
    await runs.get(session, run_id)
    after = {"after_log": after_log, "after_metric": after_metric, "after_state": after_state}
    cursors = _cursors({"channels": channels, **{key: str(value) for key, value in after.items()}})
    live = RunStream(here.db, here.hub, run_id, cursors)
    return Impatient(_sse(live), request.app.state.metrics.slow_readers.inc)


class Impatient(StreamingResponse):
    """Stops when its reader does not take a piece within SEND_S; the server then hangs up."""

    def __init__(self, content: AsyncIterator[bytes], cut: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._cut = cut

    async def stream_response(self, send: Send) -> None:
        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        try:
            await super().stream_response(send_soon)
        except TimeoutError:
            self._cut()


async def _sse(live: RunStream) -> AsyncIterator[bytes]:
    silent_s = 0.0
    async for frame in live.frames():
        if frame is not None:
            silent_s = 0.0
            yield f"data: {frame}\n\n".encode()
            continue
        silent_s += 1.0
        if silent_s >= PING_S:
            silent_s = 0.0
            yield b": ping\n\n"


def _cursors(query: dict[str, str]) -> dict[str, int]:
    wanted = [name for name in query.get("channels", "").split(",") if name in CHANNELS]
    return {name: _cursor(query.get(f"after_{name}")) for name in wanted}


def _cursor(text: Any) -> int:
    try:
        return max(0, min(MAX_CURSOR, int(text)))
    except (TypeError, ValueError):
        return 0
