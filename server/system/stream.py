"""WS /system/stream: the state of the whole, every 2 s and whenever something changed.

Frames as everywhere (`welcome`, then `batch` of channel `system`). Every item is the whole state, so a
reader that missed some needs none of them: there is nothing to replay and `after` is not asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from server.deps import Services
from server.system import service
from server.workers.routes import SYSTEM

EVERY_S = 2.0
#: changes closer together than this share a frame
AT_MOST_EVERY_S = 0.2


async def serve(socket: WebSocket, services: Services, version: str) -> None:
    """Speak to one reader until it leaves."""
    await socket.accept()
    await socket.send_json({"op": "welcome", "version": version, "channels": [SYSTEM]})
    writer = asyncio.create_task(_write(socket, services, version))
    try:
        await _read(socket)
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await writer


async def _read(socket: WebSocket) -> None:
    """Answer pings; returns when the reader has gone."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            try:
                frame: Any = json.loads(await socket.receive_text())
            except (ValueError, KeyError):
                await socket.send_json({"op": "error", "code": "invalid_frame"})
                continue
            if isinstance(frame, dict) and frame.get("op") == "ping":
                await socket.send_json({"op": "pong"})


async def _write(socket: WebSocket, services: Services, version: str) -> None:
    seq = 0
    async with services.hub.watch(SYSTEM) as system, services.hub.watch("runs") as runs:
        while True:
            auth = await socket.app.state.keys.is_on()
            async with services.db.read() as session:
                state = await service.look(session, services, version, auth=auth)
            item = {"seq": seq, "t": round(time.time(), 3), **state.model_dump(mode="json")}
            await socket.send_json(
                {"op": "batch", "channel": SYSTEM, "first": seq, "last": seq + 1, "items": [item]}
            )
            seq += 1
            await asyncio.sleep(AT_MOST_EVERY_S)
            waits = [asyncio.create_task(watch.wait(EVERY_S)) for watch in (system, runs)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
