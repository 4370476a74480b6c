"""The engine process: one model, one Unix socket, JSON lines in and out.

    → {"op": "generate", "id", "messages" | "prompt" | "ids", "max_tokens", "temperature", "top_k",
       "top_p", "seed", "stop", "n"}      → {"op": "abort", "id"}
    → {"op": "tokenize", "id", "text"}    → {"op": "detokenize", "id", "ids"}
    ← {"op": "ready", "context", "vocab_size"}
    ← {"op": "accepted", "id", "prompt_tokens"}
    ← {"op": "delta", "id", "index", "text", "tokens"}
    ← {"op": "finish", "id", "index", "reason", "tokens"}
    ← {"op": "error", "id", "code", "message", "param"}
    ← {"op": "tokens", "id", "ids"} · {"op": "text", "id", "text"}

`tokens` counts all generated so far, those of the tool included. Not covered: several connections.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nanochat.chat import ConversationError, render_prompt
from nanochat.engine.detokenize import TextStream
from nanochat.engine.engine import Engine, Output, Request
from nanochat.engine.sampling import Sampling

Frame = dict[str, Any]


class BadRequest(ValueError):
    """A request that has no answer; `code` and `param` as the OpenAI error object has them."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


@dataclass
class _Choice:
    text: TextStream
    tokens: int = 0


class EngineServer:
    """Serves one connection with one engine until the other side hangs up."""

    def __init__(self, engine: Engine, connection: socket.socket) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer
        self._connection = connection
        self._inbox: queue.Queue[Frame | None] = queue.Queue()
        self._choices: dict[tuple[str, int], _Choice] = {}

    def run(self) -> None:
        """The step loop: drain the inbox, step, post. Returns when the connection is closed."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._post([{"op": "ready", "context": self.engine.context, "vocab_size": self.tokenizer.vocab_size}])
        while True:
            for frame in self._drain():
                if frame is None:
                    return
                self._post(self._handle(frame))
            if self.engine.busy:
                self._post([out for output in self.engine.step() for out in self._say(output)])

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    self._inbox.put(json.loads(line))
        except OSError:
            pass  # the parent was killed with frames of ours unread
        finally:
            self._inbox.put(None)

    def _drain(self) -> Iterator[Frame | None]:
        """What has arrived; waits when there is nothing else to do."""
        if not self.engine.busy:
            yield self._inbox.get()
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _post(self, frames: list[Frame]) -> None:
        if frames:
            self._connection.sendall(b"".join(json.dumps(frame).encode() + b"\n" for frame in frames))

    def _handle(self, frame: Frame) -> list[Frame]:
        request_id = frame["id"]
        try:
            match frame["op"]:
                case "generate":
                    return [self._generate(request_id, frame)]
                case "abort":
                    self._forget(request_id)
                    return []
                case "tokenize":
                    return [{"op": "tokens", "id": request_id, "ids": self.tokenizer.encode(frame["text"])}]
                case "detokenize":
                    return [{"op": "text", "id": request_id, "text": self._text(frame["ids"])}]
                case other:
                    raise BadRequest(f"unknown operation {other!r}")
        except BadRequest as error:
            return [_error(request_id, error)]

    def _generate(self, request_id: str, frame: Frame) -> Frame:
        prompt = self._prompt(frame)
        room = self.engine.context - len(prompt)
        wanted = frame.get("max_tokens")
        if room < 1 or (wanted is not None and wanted > room and frame.get("strict_length", False)):
            raise BadRequest(
                f"This model's context is {self.engine.context} tokens. Your prompt has {len(prompt)} tokens"
                + (f" and you asked for {wanted} more." if wanted else ".")
                + " Shorten the messages.",
                "context_length_exceeded",
                "messages" if "messages" in frame else "prompt",
            )
        for index in range(frame.get("n", 1)):
            sampling = Sampling(
                temperature=frame.get("temperature", 1.0),
                top_k=frame.get("top_k", 0),
                top_p=frame.get("top_p", 1.0),
                seed=frame["seed"] + 1_000_003 * index,
            )
            count = min(room, wanted) if wanted is not None else room
            self.engine.add(Request(request_id, prompt, count, sampling, index))
            self._choices[request_id, index] = _Choice(TextStream(self.tokenizer, frame.get("stop", ())))
        return {"op": "accepted", "id": request_id, "prompt_tokens": len(prompt)}

    def _prompt(self, frame: Frame) -> list[int]:
        if "messages" in frame:
            try:
                return render_prompt(self.tokenizer, frame["messages"])
            except ConversationError as error:
                raise BadRequest(str(error), param="messages") from None
        if "prompt" in frame:
            return [self.tokenizer.bos, *self.tokenizer.encode(frame["prompt"])]
        ids: list[int] = frame["ids"]
        self._check(ids)
        return ids or [self.tokenizer.bos]

    def _check(self, ids: list[int]) -> None:
        if not all(0 <= token < self.tokenizer.vocab_size for token in ids):
            raise BadRequest(
                f"a token id is not between 0 and {self.tokenizer.vocab_size - 1}", param="prompt"
            )

    def _text(self, ids: list[int]) -> str:
        self._check(ids)
        return self.tokenizer.decode(ids)

    def _say(self, output: Output) -> list[Frame]:
        choice = self._choices.get((output.id, output.index))
        if choice is None:
            return []
        where = {"id": output.id, "index": output.index}
        if output.token is None:
            frames = []
            if rest := choice.text.end():
                frames.append({"op": "delta", **where, "text": rest, "tokens": choice.tokens})
            del self._choices[output.id, output.index]
            return [*frames, {"op": "finish", **where, "reason": output.finish, "tokens": choice.tokens}]
        choice.tokens += 1
        text = "" if output.tool else choice.text.push(output.token)
        frames = [{"op": "delta", **where, "text": text, "tokens": choice.tokens}] if text else []
        if choice.text.stopped:
            self.engine.stop(output.id, output.index)
            del self._choices[output.id, output.index]
            frames.append({"op": "finish", **where, "reason": "stop", "tokens": choice.tokens})
        return frames

    def _forget(self, request_id: str) -> None:
        self.engine.abort(request_id)
        for key in [key for key in self._choices if key[0] == request_id]:
            del self._choices[key]


def _error(request_id: str, error: BadRequest) -> Frame:
    return {"op": "error", "id": request_id, "code": error.code, "message": str(error), "param": error.param}
