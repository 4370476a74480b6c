"""One engine process: started with a checkpoint, watched while it lives, ended.

The process connects to a Unix socket that we listen on. When it dies, whoever waits for it is told at
once; when it is busy and says nothing for `hang_s`, it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.inference.connection import Connection
from server.inference.errors import OpenAIError, engine_died, load_failed, overloaded
from server.inference.inbox import Inbox, Lane, Question
from server.inference.numbers import ModelNumbers

log = logging.getLogger(__name__)
Frame = dict[str, Any]
TAIL_LINES = 20
LONGEST_LINE = 1000
LOOK_S = 1.0


class EngineProcess:
    """`start` it, `generate` and `ask`, `close` it.

    `argv` starts the process, without its `--socket`; `most` sequences may run or wait in it at once.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        numbers: ModelNumbers,
        *,
        env: Mapping[str, str] | None = None,
        most: int = 512,
        start_s: float = 600.0,
        hang_s: float = 120.0,
    ) -> None:
        self.name, self._argv, self.numbers, self._env = name, list(argv), numbers, dict(env or {})
        self._most, self._start_s, self._hang_s = most, start_s, hang_s
        self.about: Frame = {}
        self.dead = False
        self.last_used = time.monotonic()
        self._sequences = 0
        self._stats: Frame = {}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._connection = Connection(self._on_frame, self._on_lost)
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._asked_to_end = False

    @property
    def ready(self) -> bool:
        return bool(self.about) and not self.dead

    @property
    def busy(self) -> bool:
        """Loading or answering: not to be unloaded."""
        return self._connection.waiting > 0 or not (self.about or self.dead)

    @property
    def context(self) -> int:
        return int(self.about.get("context", 0))

    @property
    def on_gpu(self) -> bool:
        return str(self.about.get("device", "")).startswith("cuda")

    @property
    def fingerprint(self) -> str:
        """The same for the same model on the same device in the same precision."""
        seen = f"{self.name} {self.about.get('device')} {self.about.get('precision')}"
        return "fp_" + hashlib.sha256(seen.encode()).hexdigest()[:10]

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises OpenAIError with what it said last."""
        try:
            with tempfile.TemporaryDirectory(prefix="nanochat-engine-") as directory:
                await self._start(str(Path(directory) / "engine.sock"))
        except BaseException:
            await self.close()
            raise

    async def _start(self, socket_path: str) -> None:
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(self._accept, socket_path)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                *("--socket", socket_path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._env},
            )
            self.numbers.counters["engine_starts"] += 1
            said = asyncio.create_task(self._listen(self._process.stdout))
            ended = asyncio.create_task(self._wait(self._process, said))
            ready = asyncio.create_task(self._wait_ready())
            self._tasks = [said, ended]
            await asyncio.wait((ready, ended), timeout=self._start_s, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if not self.ready:
                late = f"it was not ready after {self._start_s:.0f} s"
                raise load_failed(self.name, self._why() if ended.done() else late)
        finally:
            listener.close()
        self.last_used = time.monotonic()
        self._tasks.append(asyncio.create_task(self._watch()))

    def _accept(self) -> Connection:
        return self._connection

    async def _wait_ready(self) -> None:
        await self._ready.wait()

    async def _listen(self, output: asyncio.StreamReader | None) -> None:
        """Pass on what the process prints, and keep its last lines."""
        assert output is not None
        rest = b""
        while data := await output.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._heard_line(line)
            rest = rest[-LONGEST_LINE:]
        if rest:
            self._heard_line(rest)

    def _heard_line(self, line: bytes) -> None:
        text = line[:LONGEST_LINE].decode("utf-8", "replace").rstrip()
        if text:
            self._tail.append(text)
            log.info("engine of %s: %s", self.name, text)

    async def _wait(self, process: asyncio.subprocess.Process, said: asyncio.Task[None]) -> None:
        code = await process.wait()
        with contextlib.suppress(TimeoutError):  # a grandchild may hold the pipe
            await asyncio.wait_for(asyncio.shield(said), 1)
        if not self._asked_to_end:
            log.warning("the engine of %s ended (exit code %d): %s", self.name, code, self._why())
            self.numbers.counters["engine_deaths"] += 1
        self._end(engine_died(self._how_it_ended(code)))

    async def _watch(self) -> None:
        """Kill a process that owes an answer and is silent."""
        while not self.dead:
            await asyncio.sleep(min(LOOK_S, self._hang_s / 4))
            silent_s = time.monotonic() - self._connection.heard_at
            if self._connection.waiting and silent_s > self._hang_s:
                log.error("the engine of %s said nothing for %.0f s: killing it", self.name, silent_s)
                self._end(engine_died(f"it hung for {silent_s:.0f} s"))
                self._kill()

    async def close(self, error: OpenAIError | None = None) -> None:
        """End the process; its memory comes back. Whoever waits gets `error`."""
        self._asked_to_end = True
        self._end(error or engine_died("the server ended it"))
        self._connection.close()
        process = self._process
        if process is not None and process.returncode is None:
            try:
                # without a connection it has no reason to stay; while it loads it does not notice
                await asyncio.wait_for(process.wait(), 2 if self.about else 0.1)
            except TimeoutError:
                self._kill()
                await process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _end(self, error: OpenAIError) -> None:
        self.dead = True
        self.numbers.engine_gone()
        self._connection.fail(error)

    def _why(self) -> str:
        """The last thing it said."""
        return self._tail[-1] if self._tail else "it said nothing; the server's log may know more"

    def _how_it_ended(self, code: int) -> str:
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    # ------------------------------------------------------------ frames that belong to no request

    def _on_frame(self, frame: Frame) -> None:
        if frame["op"] == "ready":
            self.about = frame
            self._ready.set()
        elif frame["op"] == "stats":
            self.numbers.engine_says(frame, self._stats)
            self._stats = frame

    def _on_lost(self) -> None:
        if not self.dead:
            self._end(engine_died())
            self._kill()  # alive or not: without its connection it is of no use

    # ------------------------------------------------------------ requests

    def generate(self, frames: Sequence[Frame], started: float) -> Generation:
        """Send one `generate` per prompt; all are answered at once. `started`: when the request came.

        Raises OpenAIError when too many wait already or the engine is dead.
        """
        self._check_alive()
        wanted = sum(frame["n"] for frame in frames)
        if self._sequences and self._sequences + wanted > self._most:
            raise overloaded(
                f"{self._sequences} sequences run or wait for this model already; try again in a moment.",
                retry_after_s=1 + self._sequences / 32,
            )
        return Generation(self, self._connection, frames, wanted, started)

    def hold(self, sequences: int) -> None:
        """Count sequences in (or, negative, out)."""
        self._sequences += sequences
        self.last_used = time.monotonic()

    async def ask(self, frame: Frame) -> Frame:
        """One question, one answer (tokenize, detokenize). Raises OpenAIError."""
        self._check_alive()
        question = Question()
        request_id = self._connection.open(question)
        try:
            self._connection.send({**frame, "id": request_id})
            return await question.answer
        finally:
            self._connection.forget(request_id)
            self.last_used = time.monotonic()

    def _check_alive(self) -> None:
        if self.dead:
            raise engine_died()


class Generation:
    """One request in an engine: frames of all its prompts in `inbox`. Whoever made it must `close` it."""

    def __init__(
        self,
        engine: EngineProcess,
        connection: Connection,
        frames: Sequence[Frame],
        sequences: int,
        started: float,
    ) -> None:
        self.engine, self.inbox = engine, Inbox()
        self._connection, self._sequences = connection, sequences
        self._lanes: dict[str, Lane] = {}
        engine.hold(sequences)
        base = 0
        try:
            for frame in frames:
                lane = Lane(self.inbox, base, frame["n"], engine.numbers, started)
                request_id = connection.open(lane)
                self._lanes[request_id] = lane
                connection.send({**frame, "op": "generate", "id": request_id})
                base += frame["n"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget the request; what still runs of it is aborted and its slots are free."""
        lanes, self._lanes = self._lanes, {}
        for request_id, lane in lanes.items():
            self._connection.forget(request_id)
            if lane.left:
                self.engine.numbers.finished["abort"] += lane.left
                with contextlib.suppress(OpenAIError):
                    self._connection.send({"op": "abort", "id": request_id})
        self.engine.hold(-self._sequences)
        self._sequences = 0
