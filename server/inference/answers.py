"""Answers of the OpenAI surface, whole or as chunks, out of the engine's frames."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from server.ids import new_id
from server.inference.engine_process import EngineProcess, Frame
from server.inference.errors import OpenAIError

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


@dataclass
class Usage:
    prompt: int = 0
    completion: dict[tuple[int, int], int] = field(default_factory=dict)

    def json(self) -> Json:
        completion = sum(self.completion.values())
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": completion,
            "total_tokens": self.prompt + completion,
        }


@dataclass
class Answer:
    """One request in flight: `frames` are the engine's generate frames, one per prompt."""

    engine: EngineProcess
    model: str
    frames: list[Frame]
    chat: bool
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + new_id("a")
        self.created = int(time.time())

    async def events(self) -> AsyncGenerator[tuple[int, Frame], None]:
        """(choice index, frame) of all prompts in turn; usage is counted on the way."""
        for number, frame in enumerate(self.frames):
            async with aclosing(self.engine.generate(frame)) as answers:
                async for answer in answers:
                    if answer["op"] == "accepted":
                        self.usage.prompt += answer["prompt_tokens"]
                        continue
                    self.usage.completion[number, answer["index"]] = answer["tokens"]
                    yield number * frame["n"] + answer["index"], answer

    # ------------------------------------------------------------ whole

    async def whole(self) -> Json:
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        async with aclosing(self.events()) as events:
            async for index, frame in events:
                if frame["op"] == "delta":
                    texts[index] = texts.get(index, "") + frame["text"]
                else:
                    reasons[index] = frame["reason"]
        choices = [self._choice(index, texts.get(index, ""), reasons[index]) for index in sorted(reasons)]
        return {**self._head(chunk=False), "choices": choices, "usage": self.usage.json()}

    def _choice(self, index: int, text: str, reason: str) -> Json:
        if not self.chat:
            return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    # ------------------------------------------------------------ stream

    async def stream(
        self, first: tuple[int, Frame] | None, events: Any, include_usage: bool
    ) -> AsyncIterator[bytes]:
        """Server-sent events. A fault after the headers is a frame with an `error` object, then [DONE]."""
        begun: set[int] = set()
        async with aclosing(events):
            try:
                if first is not None:
                    yield self._event(*first, begun, include_usage)
                async for index, frame in events:
                    yield self._event(index, frame, begun, include_usage)
                if include_usage:
                    yield _data({**self._head(chunk=True), "choices": [], "usage": self.usage.json()})
            except OpenAIError as error:
                yield _data(error.body)
        yield DONE

    def _event(self, index: int, frame: Frame, begun: set[int], include_usage: bool) -> bytes:
        parts = []
        if self.chat and index not in begun:
            begun.add(index)
            parts.append(self._delta(index, {"role": "assistant", "content": ""}, None))
        if frame["op"] == "delta":
            said = {"content": frame["text"]} if self.chat else frame["text"]
            parts.append(self._delta(index, said, None))
        else:
            parts.append(self._delta(index, {} if self.chat else "", frame["reason"]))
        usage = {"usage": None} if include_usage else {}
        return b"".join(_data({**self._head(chunk=True), "choices": [part], **usage}) for part in parts)

    def _delta(self, index: int, said: Any, reason: str | None) -> Json:
        key = "delta" if self.chat else "text"
        return {"index": index, key: said, "logprobs": None, "finish_reason": reason}

    def _head(self, chunk: bool) -> Json:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


def _data(body: Json) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
