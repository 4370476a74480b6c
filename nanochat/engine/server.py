"""The engine process: one model, one Unix socket, JSON lines in and out.

    → {"op": "generate", "id", "messages" | "prompt" | "ids", "max_tokens", "temperature", "top_k",
       "top_p", "min_p", "seed", "stop", "n", "presence_penalty", "frequency_penalty",
       "repetition_penalty", "logit_bias", "logprobs", "echo", "cache", "ignore_eos"}
    → {"op": "abort", "id"}
    → {"op": "render", "id", "messages" | "prompt" | "ids"}    (what the model would be given)
    → {"op": "tokenize", "id", "text" | "messages"}    → {"op": "detokenize", "id", "ids"}
    ← {"op": "ready", "context", "vocab_size", "slots", "device", "precision"}
    ← {"op": "accepted", "id", "prompt_tokens"}
    ← {"op": "delta", "id", "index", "text", "tokens", "logprobs"}
    ← {"op": "finish", "id", "index", "reason", "tokens", "cached_tokens", "queue_s", "prefill_s", "decode_s"}
    ← {"op": "error", "id", "code", "message", "param"}
    ← {"op": "tokens", "id", "ids"} · {"op": "text", "id", "text"}
    ← {"op": "stats", "running", "waiting", "kv_blocks", "kv_used", "prefix_queries", "prefix_hits",
       "prompt_tokens", "generation_tokens", "steps", "batch_sum", "preemptions"}

`tokens` counts all generated so far, those of the tool included. `echo`: the prompt comes first, as a delta
with `tokens` 0. Log-probabilities without `messages` are those of every token drawn, also of an end token
and of a tool's, which have no text. `cache`: only requests with an equal one share cached prefixes. `stats`
come once a second while there is work, and when it ends. `remote.py` speaks the same for a model that runs
elsewhere.
Not covered: several connections.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nanochat.chat import ConversationError, render_prompt
from nanochat.engine.detokenize import TextStream
from nanochat.engine.engine import Engine, Logprob, Output, Request, Usage
from nanochat.engine.sampling import Sampling
from nanochat.tokenizer import Tokenizer

STATS_S = 1.0
SEED_STEP = 1_000_003  # between the choices of a request
Frame = dict[str, Any]


class BadRequest(ValueError):
    """A request that has no answer; `code` and `param` as the OpenAI error object has them."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


@dataclass
class _Choice:
    text: TextStream
    prompt: list[int]
    added: int  # tokens of the prompt that are ours, not the client's
    logprobs: bool
    plain: bool  # no chat: whoever sums log-probabilities counts on one for every token drawn
    tokens: int = 0
    told: list[Frame] = field(default_factory=list)  # log-probabilities that go with the next text


class TextServer:
    """Text to ids and back for one connection: what needs no model."""

    def __init__(self, tokenizer: Tokenizer, context: int, connection: socket.socket) -> None:
        self.tokenizer, self.context = tokenizer, context
        self._connection = connection

    def run(self) -> None:
        """Answer line by line. Returns when the connection is closed."""
        self._post([self._ready()])
        with self._connection.makefile("rb") as lines:
            for line in lines:
                self._post(self._handle(json.loads(line)))

    def _ready(self) -> Frame:
        return {
            "op": "ready", "context": self.context, "vocab_size": self.tokenizer.vocab_size, "slots": 0,
            "device": "", "precision": "",
        }  # fmt: skip

    def _post(self, frames: list[Frame]) -> None:
        if frames:
            self._connection.sendall(b"".join(json.dumps(frame).encode() + b"\n" for frame in frames))

    def _handle(self, frame: Frame) -> list[Frame]:
        request_id = frame["id"]
        try:
            return self._answer(request_id, frame)
        except BadRequest as error:
            return [_error(request_id, error)]

    def _answer(self, request_id: str, frame: Frame) -> list[Frame]:
        match frame["op"]:
            case "render":
                return [{"op": "tokens", "id": request_id, "ids": self._prompt(frame)}]
            case "tokenize":
                ids = self._prompt(frame) if "messages" in frame else self.tokenizer.encode(frame["text"])
                return [{"op": "tokens", "id": request_id, "ids": ids}]
            case "detokenize":
                return [{"op": "text", "id": request_id, "text": self._text(frame["ids"])}]
            case other:
                raise BadRequest(f"unknown operation {other!r}")

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

    def _room(self, prompt: list[int], frame: Frame) -> int:
        """Tokens to generate at most. Raises BadRequest when the context has no room for one."""
        wanted = frame.get("max_tokens")
        room = self.context - len(prompt)
        if room >= (0 if wanted == 0 else 1):
            return room if wanted is None else min(room, wanted)
        param = "messages" if "messages" in frame else "prompt"
        more = f" and you asked for {wanted} more." if wanted else "."
        raise BadRequest(
            f"This model's context is {self.context} tokens. Your prompt has {len(prompt)} tokens{more}"
            f" Shorten the {param}.",
            "context_length_exceeded",
            param,
        )

    def _check(self, ids: list[int]) -> None:
        if not all(0 <= token < self.tokenizer.vocab_size for token in ids):
            raise BadRequest(
                f"a token id is not between 0 and {self.tokenizer.vocab_size - 1}", param="prompt"
            )

    def _text(self, ids: list[int]) -> str:
        self._check(ids)
        return self.tokenizer.decode(ids)


class EngineServer(TextServer):
    """Serves one connection with one engine until the other side hangs up."""

    def __init__(self, engine: Engine, connection: socket.socket) -> None:
        super().__init__(engine.tokenizer, engine.context, connection)
        self.engine = engine
        self._inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._choices: dict[tuple[str, int], _Choice] = {}
        self._stats_at, self._was_busy = 0.0, False

    def run(self) -> None:
        """The step loop: drain the inbox, step, post. Returns when the connection is closed."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._post([self._ready()])
        while True:
            for frame in self._drain():
                if frame is None:
                    return
                self._was_busy |= frame["op"] == "generate"
                self._post(self._handle(frame))
            frames: list[Frame] = []
            if worked := self.engine.busy:
                frames = [out for output in self.engine.step() for out in self._say(output)]
            now, busy = time.monotonic(), self.engine.busy
            if (worked and now >= self._stats_at + STATS_S) or (not busy and self._was_busy):
                self._stats_at = now
                frames.append(self._stats())
            self._was_busy = busy
            self._post(frames)

    def _ready(self) -> Frame:
        engine = self.engine
        return {
            "op": "ready", "context": engine.context, "vocab_size": self.tokenizer.vocab_size,
            "slots": engine.lanes, "device": str(getattr(engine.runner, "device", "cpu")),
            "precision": engine.runner.precision,
        }  # fmt: skip

    def _stats(self) -> Frame:
        engine, scheduler = self.engine, self.engine.scheduler
        return {
            "op": "stats", "running": len(scheduler.running), "waiting": scheduler.waiting,
            "kv_blocks": engine.blocks.count, "kv_used": engine.blocks.used,
            "prefix_queries": scheduler.prefix_queries, "prefix_hits": scheduler.prefix_hits,
            "prompt_tokens": engine.prompt_tokens, "generation_tokens": engine.generated_tokens,
            "steps": engine.passes, "batch_sum": engine.rows, "preemptions": scheduler.preemptions,
        }  # fmt: skip

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

    def _answer(self, request_id: str, frame: Frame) -> list[Frame]:
        match frame["op"]:
            case "generate":
                return self._generate(request_id, frame)
            case "abort":
                self._forget(request_id)
                return []
            case _:
                return super()._answer(request_id, frame)

    # ------------------------------------------------------------ requests

    def _generate(self, request_id: str, frame: Frame) -> list[Frame]:
        prompt = self._prompt(frame)
        count = self._room(prompt, frame)
        logprobs, echo = frame.get("logprobs"), bool(frame.get("echo"))
        requests = []
        for index in range(frame.get("n", 1)):
            sampling = self._sampling(frame, index)
            requests.append(
                Request(
                    request_id,
                    prompt,
                    count,
                    sampling,
                    index,
                    logprobs,
                    echo,
                    salt=str(frame.get("cache", "")),
                    ignore_eos=bool(frame.get("ignore_eos")),
                )
            )
        frames: list[Frame] = [{"op": "accepted", "id": request_id, "prompt_tokens": len(prompt)}]
        self.engine.prompt_tokens += len(prompt)
        for request in requests:
            stream = TextStream(self.tokenizer, frame.get("stop", ()))
            choice = _Choice(
                stream, prompt, int("prompt" in frame), logprobs is not None, "messages" not in frame
            )
            self._choices[request_id, request.index] = choice
            if echo and logprobs is None:
                frames += self._echo(request_id, request.index, choice, ())
        self.engine.add(*requests)
        return frames

    def _sampling(self, frame: Frame, index: int) -> Sampling:
        bias = {int(token): float(value) for token, value in (frame.get("logit_bias") or {}).items()}
        if not all(0 <= token < self.tokenizer.vocab_size for token in bias):
            raise BadRequest(
                f"a token id is not between 0 and {self.tokenizer.vocab_size - 1}", param="logit_bias"
            )
        return Sampling(
            temperature=frame.get("temperature", 1.0),
            top_k=frame.get("top_k", 0),
            top_p=frame.get("top_p", 1.0),
            min_p=frame.get("min_p", 0.0),
            seed=frame["seed"] + SEED_STEP * index,
            presence=frame.get("presence_penalty", 0.0),
            frequency=frame.get("frequency_penalty", 0.0),
            repetition=frame.get("repetition_penalty", 1.0),
            bias=bias,
        )

    def _forget(self, request_id: str) -> None:
        self.engine.abort(request_id)
        for key in [key for key in self._choices if key[0] == request_id]:
            del self._choices[key]

    # ------------------------------------------------------------ answers

    def _say(self, output: Output) -> list[Frame]:
        choice = self._choices.get((output.id, output.index))
        if choice is None:
            return []
        if output.echo:
            return self._echo(output.id, output.index, choice, output.echo)
        if output.finish is not None:
            if output.logprob is not None and choice.plain:
                choice.told.append(self._told(output.logprob))
            rest = choice.text.end()
            frames = [self._delta(output.id, output.index, choice, rest)] if rest or choice.told else []
            assert output.usage is not None
            return [*frames, self._end(output.id, output.index, choice, output.finish, output.usage)]
        assert output.token is not None
        choice.tokens += 1
        text = "" if output.tool else choice.text.push(output.token)
        if output.logprob is not None and (choice.plain or not output.tool):
            choice.told.append(self._told(output.logprob))
        frames = [self._delta(output.id, output.index, choice, text)] if text else []
        if choice.text.stopped:
            usage = self.engine.stop(output.id, output.index)
            frames.append(
                self._end(output.id, output.index, choice, "stop", usage or Usage(0, 0.0, 0.0, 0.0))
            )
        return frames

    def _delta(self, request_id: str, index: int, choice: _Choice, text: str) -> Frame:
        told, choice.told = choice.told, []
        return {
            "op": "delta", "id": request_id, "index": index, "text": text, "tokens": choice.tokens,
            "logprobs": told if choice.logprobs else None,
        }  # fmt: skip

    def _echo(self, request_id: str, index: int, choice: _Choice, told: tuple[Logprob, ...]) -> list[Frame]:
        choice.told = [self._told(one) for one in told[choice.added :]]
        return [self._delta(request_id, index, choice, self.tokenizer.decode(choice.prompt[choice.added :]))]

    def _end(self, request_id: str, index: int, choice: _Choice, reason: str, usage: Usage) -> Frame:
        del self._choices[request_id, index]
        return {
            "op": "finish", "id": request_id, "index": index, "reason": reason, "tokens": choice.tokens,
            **asdict(usage),
        }  # fmt: skip

    def _told(self, one: Logprob) -> Frame:
        top = [self._named(token, value) for token, value in one.top]
        return {**self._named(one.token, one.logprob), "top": top}

    def _named(self, token: int, logprob: float | None) -> Frame:
        raw = self.tokenizer.bytes_of(token)
        return {"id": token, "token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}


def _error(request_id: str, error: BadRequest) -> Frame:
    return {"op": "error", "id": request_id, "code": error.code, "message": str(error), "param": error.param}
