"""An engine without a model: speaks the socket's protocol, says `word ` for ever, and misbehaves when asked.

`python -m tests.server.inference.stub_engine --checkpoint DIR --socket PATH`. A prompt (or last message)
that holds `hang` gets no further frame, `die` ends the process, `junk` gets a line that is no JSON,
`refuse` is refused as overloaded; behind `say ` it is said as it is, a few characters a step. STUB_STEP_S
slows its steps, STUB_LOAD_S its start; STUB_BROKEN keeps it from starting at all, STUB_DEVICE is what it
says it runs on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys
import time
from typing import Any

import orjson

Frame = dict[str, Any]
SAY, PIECE = "say ", 5  # characters


class Stub:
    """One step: every running choice says one word; the frames of a step go out in one write."""

    def __init__(self, connection: socket.socket, step_s: float) -> None:
        self._connection, self._step_s = connection, step_s
        self._running: dict[tuple[str, int], tuple[int, int]] = {}
        self._told: dict[str, list[str]] = {}
        self._rest = b""
        self._hangs = False

    def run(self) -> None:
        device = os.environ.get("STUB_DEVICE", "cpu")
        self._say({"op": "ready", "context": 4096, "vocab_size": 400, "slots": 16, "device": device})
        while self._listen():
            if self._running and not self._hangs:
                self._step()

    def _listen(self) -> bool:
        """Take what has arrived; False when the other side has gone."""
        wait_s = None if self._hangs or not self._running else self._step_s
        while select.select([self._connection], [], [], wait_s)[0]:
            data = self._connection.recv(1 << 20)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._handle(orjson.loads(line))
            wait_s = 0
        return True

    def _handle(self, frame: Frame) -> None:
        key = frame["id"]
        if frame["op"] == "abort":
            self._running = {k: v for k, v in self._running.items() if k[0] != key}
        elif frame["op"] == "tokenize":
            self._say({"op": "tokens", "id": key, "ids": list(frame["text"].encode())})
        elif frame["op"] == "generate":
            self._generate(key, frame)

    def _generate(self, key: str, frame: Frame) -> None:
        said = frame.get("prompt") or frame.get("messages", [{}])[-1].get("content", "")
        if "die" in said:
            print("engine: told to die", file=sys.stderr, flush=True)
            os._exit(3)
        if "junk" in said:
            self._connection.sendall(b"no json\n")
        if "refuse" in said:
            self._say({"op": "error", "id": key, "code": "overloaded", "message": "full", "param": None})
            return
        self._hangs = self._hangs or "hang" in said
        self._say({"op": "accepted", "id": key, "prompt_tokens": 5})
        most = frame["max_tokens"] or 64
        if said.startswith(SAY):
            text = said.removeprefix(SAY)
            self._told[key] = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
            most = len(self._told[key])
        for index in range(frame["n"]):
            self._running[key, index] = (0, most)

    def _step(self) -> None:
        frames: list[Frame] = []
        for (key, index), (tokens, most) in list(self._running.items()):
            tokens += 1
            where = {"id": key, "index": index}
            told = self._told.get(key)
            text = told[tokens - 1] if told else f"word{tokens} "
            frames.append({"op": "delta", **where, "text": text, "tokens": tokens, "logprobs": None})
            self._running[key, index] = (tokens, most)
            if tokens == most:
                frames.append({
                    "op": "finish", **where, "reason": "stop" if told else "length",
                    "tokens": tokens, "cached_tokens": 3,
                    "queue_s": 0.001, "prefill_s": 0.002, "decode_s": 0.003,
                })  # fmt: skip
                del self._running[key, index]
        self._say(*frames)

    def _say(self, *frames: Frame) -> None:
        self._connection.sendall(b"".join(orjson.dumps(frame) + b"\n" for frame in frames))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--socket", required=True)
    args, _ = parser.parse_known_args()
    if os.environ.get("STUB_BROKEN"):
        print("Traceback (most recent call last):\nengine: this model is broken", file=sys.stderr)
        return 1
    time.sleep(float(os.environ.get("STUB_LOAD_S", "0")))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(args.socket)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server has gone
            Stub(connection, float(os.environ.get("STUB_STEP_S", "0"))).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
