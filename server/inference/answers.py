"""One request from its parsed body to its answer: found model, running engine, frames, usage."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from server.ids import new_id
from server.inference import logprobs
from server.inference.engine_process import Generation
from server.inference.engines import EngineManager
from server.inference.inbox import Frame
from server.inference.schemas import ChatRequest
from server.inference.schemas import Generation as Request

Json = dict[str, Any]


@dataclass
class Usage:
    """Tokens of all prompts and choices. A prompt's cached tokens are those of its first choice."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def json(self) -> Json:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass
class _Choice:
    texts: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    reason: str = ""


class Answer:
    """`begin` it, then take all of it with `whole`, or `take` frames as they come; `close` it always."""

    def __init__(self, engines: EngineManager, request: Request) -> None:
        self.request, self.chat = request, isinstance(request, ChatRequest)
        self.usage = Usage()
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + new_id("a")
        self.created = int(time.time())
        self.alternatives = request.alternatives()
        self._engines, self._started = engines, time.monotonic()
        self._frames = request.frames()
        self._generation: Generation | None = None
        self._early: list[Frame] = []
        self._to_accept = len(self._frames)
        self._left = self.choices = len(self._frames) * request.choices

    @property
    def over(self) -> bool:
        """Everything was taken."""
        return not self._left and not self._early

    def head(self, *, chunk: bool) -> Json:
        """What every answer and every chunk begins with."""
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        fingerprint = self._generation.engine.fingerprint if self._generation else None
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": fingerprint,
        }

    async def begin(self) -> None:
        """Load the model, send the prompts and wait until the engine has accepted them all.

        Raises OpenAIError: what is wrong with the request decides the status, stream or not.
        """
        model = await self._engines.model(self.request.model)
        engine = await self._engines.engine(model)
        self._generation = engine.generate(self._frames, self._started)
        while self._to_accept:
            self._early += await self._next()

    async def take(self) -> list[Frame]:
        """Deltas and finishes since the last call; waits for some. Empty after a `wake`."""
        if self._early:
            early, self._early = self._early, []
            return early
        return await self._next()

    def wake(self) -> None:
        """Make a waiting `take` return."""
        if self._generation is not None:
            self._generation.inbox.wake()

    def close(self) -> None:
        if self._generation is not None:
            self._generation.close()

    async def _next(self) -> list[Frame]:
        assert self._generation is not None
        frames = await self._generation.inbox.take()
        said = []
        for frame in frames:
            if frame["op"] == "accepted":
                self._to_accept -= 1
                self.usage.prompt += frame["prompt_tokens"]
                continue
            if frame["op"] == "finish":
                self._left -= 1
                self.usage.completion += frame["tokens"]
                if frame["index"] % self.request.choices == 0:
                    self.usage.cached += frame.get("cached_tokens") or 0
            said.append(frame)
        return said

    # ------------------------------------------------------------ whole

    async def whole(self) -> Json:
        """The answer as one object. Raises OpenAIError."""
        await self.begin()
        choices = [_Choice() for _ in range(self.choices)]
        while not self.over:
            for frame in await self.take():
                choice = choices[frame["index"]]
                if frame["op"] == "finish":
                    choice.reason = frame["reason"]
                    continue
                choice.texts.append(frame["text"])
                choice.logprobs += frame.get("logprobs") or ()
        answered = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return {**self.head(chunk=False), "choices": answered, "usage": self.usage.json()}

    def _choice(self, index: int, choice: _Choice) -> Json:
        said = "".join(choice.texts)
        shared = {"index": index, "finish_reason": choice.reason}
        if self.chat:
            message = {"role": "assistant", "content": said, "refusal": None}
            return {**shared, "message": message, "logprobs": self._logprobs(choice.logprobs)}
        return {**shared, "text": said, "logprobs": self._logprobs(choice.logprobs)}

    def _logprobs(self, entries: list[Json]) -> Json | None:
        if self.alternatives is None:
            return None
        if self.chat:
            return {"content": logprobs.chat_content(entries), "refusal": None}
        return logprobs.completion(entries, self.alternatives, logprobs.Offsets())
