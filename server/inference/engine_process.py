"""One engine process and the connection to it: frames out, frames in by request.

The process connects to a socket that we listen on; when it dies, every request waiting on it gets an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import orjson

from server.inference.errors import OpenAIError, engine_died

START_S = 120.0
LINE_LIMIT = 8 * 1024 * 1024
#: sequences waiting or running in one engine; beyond that the client is told to come back
MAX_SEQUENCES = 128
Frame = dict[str, Any]


class EngineProcess:
    """Starts with `start`; `generate` and `ask` speak to it; `close` ends it."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.last_used = time.monotonic()
        self.context = 0
        self._ids = itertools.count()
        self._inboxes: dict[str, asyncio.Queue[Frame | None]] = {}
        self._sequences = 0
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = False
        self.dead = False

    @property
    def busy(self) -> bool:
        """Loading or answering: not to be unloaded."""
        return bool(self._inboxes) or not (self._ready or self.dead)

    async def start(self) -> None:
        """Start the process and wait until the model is loaded. Raises OpenAIError when it does not load."""
        connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        connected = asyncio.get_running_loop().create_future()

        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not connected.done():
                connected.set_result((reader, writer))

        with tempfile.TemporaryDirectory(prefix="nanochat-engine-") as directory:
            path = str(Path(directory) / "engine.sock")
            listener = await asyncio.start_unix_server(on_connect, path, limit=LINE_LIMIT)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "nanochat.engine"),
                    *("--checkpoint", str(self.checkpoint), "--socket", path),
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
                ended = asyncio.create_task(self._process.wait())
                await asyncio.wait((connected, ended), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                if not connected.done():
                    raise _not_loaded()
                reader, self._writer = connected.result()
                ready = orjson.loads(await asyncio.wait_for(reader.readline(), START_S))
                self.context = ready["context"]
                self._ready, self.last_used = True, time.monotonic()
                self._reading = asyncio.create_task(self._read(reader))
            except (ValueError, KeyError, TimeoutError, ConnectionError):  # it died between hello and ready
                await self.close()
                raise _not_loaded() from None
            except BaseException:
                await self.close()
                raise
            finally:
                listener.close()

    async def generate(self, frame: Frame) -> AsyncGenerator[Frame, None]:
        """Frames of one request: `accepted`, `delta`s, a `finish` per choice. Left early, it is aborted.

        Raises OpenAIError: what is wrong with the request, too many waiting, or the engine died.
        """
        count = int(frame.get("n", 1))
        if self._sequences + count > MAX_SEQUENCES:
            raise OpenAIError(
                503, "Too many requests are waiting for this model.", code="overloaded", retry_after_s=2
            )
        request_id, inbox = self._open()
        self._sequences += count
        left = count
        try:
            await self._send({**frame, "op": "generate", "id": request_id})
            while left:
                answer = await self._receive(inbox)
                left -= answer["op"] == "finish"
                yield answer
        finally:
            self._sequences -= count
            self._inboxes.pop(request_id, None)
            if left and not self.dead:
                with contextlib.suppress(OpenAIError):
                    await self._send({"op": "abort", "id": request_id})

    async def ask(self, frame: Frame) -> Frame:
        """One question, one answer (tokenize, detokenize). Raises OpenAIError."""
        request_id, inbox = self._open()
        try:
            await self._send({**frame, "id": request_id})
            return await self._receive(inbox)
        finally:
            self._inboxes.pop(request_id, None)

    async def close(self) -> None:
        """End the process; its memory comes back."""
        self.dead = True
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
        process = self._process
        if process is not None and process.returncode is None:
            try:
                await asyncio.wait_for(process.wait(), 2)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._drop()

    def _open(self) -> tuple[str, asyncio.Queue[Frame | None]]:
        if self.dead:
            raise engine_died()
        self.last_used = time.monotonic()
        request_id = str(next(self._ids))
        self._inboxes[request_id] = asyncio.Queue()
        return request_id, self._inboxes[request_id]

    async def _send(self, frame: Frame) -> None:
        assert self._writer is not None
        try:
            self._writer.write(orjson.dumps(frame) + b"\n")
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            raise engine_died() from None

    async def _receive(self, inbox: asyncio.Queue[Frame | None]) -> Frame:
        answer = await inbox.get()
        self.last_used = time.monotonic()
        if answer is None:
            raise engine_died()
        if answer["op"] == "error":
            raise OpenAIError(400, answer["message"], code=answer["code"], param=answer["param"])
        return answer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            async for line in reader:
                frame = orjson.loads(line)
                if inbox := self._inboxes.get(frame["id"]):
                    inbox.put_nowait(frame)
        except (ConnectionError, ValueError):
            pass
        finally:
            self.dead = True
            self._drop()

    def _drop(self) -> None:
        for inbox in self._inboxes.values():
            inbox.put_nowait(None)


def _not_loaded() -> OpenAIError:
    return OpenAIError(500, "The model did not load; the server's log says why.", code="model_load_failed")
