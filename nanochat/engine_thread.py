"""An engine that runs in a thread of this process, for many threads that ask.

The protocol is that of the engine process (nanochat/engine/server.py), over a socket pair instead of a path.
Not covered: an engine that dies is not started again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import socket
import threading
from types import TracebackType
from typing import Any

from nanochat.engine import Engine
from nanochat.engine.server import EngineServer

Frame = dict[str, Any]
MOST = 64  # requests that run or wait


class EngineBusy(Exception):
    """As many requests as are allowed run or wait already."""


class EngineDied(Exception):
    """The engine's thread has ended; its traceback is on stderr."""


class EngineThread:
    """Starts with the object and ends with `close`."""

    def __init__(self, engine: Engine, most: int = MOST) -> None:
        self.most = most
        self.died = threading.Event()
        self._closing = False
        self._lock = threading.Lock()  # of what follows
        self._inboxes: dict[str, queue.SimpleQueue[Frame | None]] = {}
        self._numbers = itertools.count()
        self._ours, theirs = socket.socketpair()
        self._threads = [
            threading.Thread(target=self._run, args=(engine, theirs), name="engine", daemon=True),
            threading.Thread(target=self._read, name="engine-reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, frame: Frame) -> Answer:
        """Send a `generate` without its id. Raises EngineBusy and EngineDied."""
        inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        with self._lock:
            if self.died.is_set():
                raise EngineDied
            if len(self._inboxes) >= self.most:
                raise EngineBusy
            request_id = str(next(self._numbers))
            self._inboxes[request_id] = inbox
            self._send({**frame, "op": "generate", "id": request_id})
        return Answer(self, request_id, inbox, frame.get("n", 1))

    def forget(self, request_id: str, over: bool) -> None:
        """Whatever else comes for this request is dropped; the engine stops when it is not over."""
        with self._lock:
            del self._inboxes[request_id]
            if not over and not self.died.is_set():
                self._send({"op": "abort", "id": request_id})

    @property
    def requests(self) -> int:
        """How many run or wait."""
        return len(self._inboxes)

    def close(self) -> None:
        """End the engine; answers that are still awaited raise EngineDied."""
        self._closing = True
        self._ours.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._ours.close()

    def _send(self, frame: Frame) -> None:
        try:
            self._ours.sendall(json.dumps(frame).encode() + b"\n")
        except OSError:
            raise EngineDied from None

    def _run(self, engine: Engine, theirs: socket.socket) -> None:
        try:
            EngineServer(engine, theirs).run()
        except OSError:
            if not self._closing:
                raise
        finally:
            with contextlib.suppress(OSError):
                theirs.shutdown(socket.SHUT_RDWR)  # closing alone would wait for the reader's file
            theirs.close()

    def _read(self) -> None:
        with self._ours.makefile("rb") as lines:
            for line in lines:
                frame = json.loads(line)
                if inbox := self._inboxes.get(frame.get("id", "")):
                    inbox.put(frame)
        with self._lock:
            self.died.set()
            for inbox in self._inboxes.values():
                inbox.put(None)


class Answer:
    """What the engine says to one request. Leaving the `with` block ends it, wherever it is."""

    def __init__(
        self, engine: EngineThread, request_id: str, inbox: queue.SimpleQueue[Frame | None], choices: int
    ) -> None:
        self._engine, self._id, self._inbox, self._left = engine, request_id, inbox, choices

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.forget(self._id, self.over)

    @property
    def over(self) -> bool:
        """Whether all choices have ended."""
        return self._left <= 0

    def next(self, wait_s: float) -> Frame | None:
        """The next frame; None when there is none for `wait_s`. Raises EngineDied."""
        try:
            frame = self._inbox.get(timeout=wait_s)
        except queue.Empty:
            return None
        if frame is None:
            raise EngineDied
        if frame["op"] == "finish":
            self._left -= 1
        elif frame["op"] == "error":
            self._left = 0
        return frame
