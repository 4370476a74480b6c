"""What an engine says about one request, waiting to be read: bounded, and nothing is lost.

A reader that falls behind finds its deltas put together: at most one per choice beyond MAX_FRAMES, so a
slow reader holds no more than the text of its own answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from server.inference.errors import OpenAIError, engine_died, overloaded
from server.inference.numbers import ModelNumbers

Frame = dict[str, Any]
#: pending frames before deltas are put together
MAX_FRAMES = 256


class Inbox:
    """Frames of all prompts of one request; `index` in them counts choices over all prompts."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: OpenAIError | None = None
        self._most = MAX_FRAMES

    def push(self, frame: Frame) -> None:
        frames = self._frames
        frames.append(frame)
        if len(frames) > self._most:
            self._frames = merged(frames)
            self._most = max(MAX_FRAMES, 2 * len(self._frames))
        self.wake()

    def fail(self, error: OpenAIError) -> None:
        """No more will come: the reader gets what is here, then the error."""
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        """Let the reader look; it may find nothing."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> list[Frame]:
        """Everything that has come since the last call; waits for it. Empty: somebody said `wake`."""
        if not self._frames and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frames, self._frames, self._most = self._frames, [], MAX_FRAMES
        if not frames and self._error is not None:
            raise self._error
        return frames


def merged(frames: list[Frame]) -> list[Frame]:
    """The same with each choice's deltas put together, at the place of its first."""
    kept: list[Frame] = []
    deltas: dict[int, Frame] = {}
    for frame in frames:
        if frame["op"] != "delta":
            kept.append(frame)
            continue
        first = deltas.get(frame["index"])
        if first is None or first["tokens"] == 0:  # an echoed prompt stays a delta of its own
            deltas[frame["index"]] = frame
            kept.append(frame)
            continue
        first["text"] += frame["text"]
        first["tokens"] = frame["tokens"]
        if frame.get("logprobs"):
            first["logprobs"] = [*(first.get("logprobs") or ()), *frame["logprobs"]]
    return kept


class Lane:
    """One prompt of a request: puts its frames into the inbox and measures as they arrive."""

    __slots__ = ("_base", "_heard", "_inbox", "_numbers", "_started", "_tokens", "left")

    def __init__(self, inbox: Inbox, base: int, choices: int, numbers: ModelNumbers, started: float) -> None:
        self._inbox, self._base, self._numbers, self._started = inbox, base, numbers, started
        self._heard = [started] * choices
        self._tokens = [0] * choices
        self.left = choices

    def push(self, frame: Frame, now: float) -> None:
        """A frame that arrived at `now` (monotonic)."""
        op = frame["op"]
        if op == "delta":
            self._count(frame["index"], frame["tokens"], now)
            frame["index"] += self._base
        elif op == "finish":
            self._finish(frame, now)
            frame["index"] += self._base
        elif op == "accepted":
            tokens = frame["prompt_tokens"]
            self._numbers.counters["prompt_tokens"] += tokens
            self._numbers.observe("request_prompt_tokens", tokens)
            frame["base"] = self._base
        elif op == "error":
            self.fail(refused(frame))
            return
        self._inbox.push(frame)

    def fail(self, error: OpenAIError, reason: str = "error") -> None:
        """What is left of it will not come."""
        self._numbers.finished[reason] += self.left
        self.left = 0
        self._inbox.fail(error)

    def _count(self, index: int, tokens: int, now: float) -> None:
        before = self._tokens[index]
        fresh = tokens - before
        if fresh <= 0:
            return
        if before:
            self._numbers.inter_token.observe((now - self._heard[index]) / fresh, fresh)
        elif not any(self._tokens):
            self._numbers.observe("time_to_first_token_seconds", now - self._started)
        self._tokens[index], self._heard[index] = tokens, now
        self._numbers.counters["generation_tokens"] += fresh

    def _finish(self, frame: Frame, now: float) -> None:
        numbers, index = self._numbers, frame["index"]
        self._count(index, frame["tokens"], now)
        self.left -= 1
        numbers.finished[frame["reason"]] += 1
        numbers.observe("request_generation_tokens", frame["tokens"])
        if index == 0:
            for name in ("queue", "prefill", "decode"):
                numbers.observe(f"request_{name}_time_seconds", frame.get(f"{name}_s"))
        if not self.left:
            numbers.observe("e2e_request_latency_seconds", now - self._started)


class Question:
    """Something with one answer (tokenize, detokenize)."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

    def push(self, frame: Frame, now: float) -> None:
        del now
        if frame["op"] == "error":
            self.fail(refused(frame))
        elif not self.answer.done():
            self.answer.set_result(frame)

    def fail(self, error: OpenAIError, reason: str = "error") -> None:
        del reason
        if not self.answer.done():
            self.answer.set_exception(error)


def refused(frame: Frame) -> OpenAIError:
    """The engine's `error` frame as what the client is told."""
    message, code, param = str(frame["message"]), frame.get("code"), frame.get("param")
    if code == "overloaded":
        return overloaded(message, retry_after_s=2)
    if code in ("internal", "engine_error"):
        return engine_died(message)
    return OpenAIError(400, message, code=code or "invalid_value", param=param)
