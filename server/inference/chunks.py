"""Frames of the engine as chunks of a stream. Per token: the text as JSON between two constant strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from server.inference import logprobs
from server.inference.answers import Answer
from server.inference.inbox import Frame

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def event(body: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


class ChunkWriter:
    """Writes the chunks of one answer; made once its engine is known."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self._chat = answer, answer.chat
        self._alternatives = answer.alternatives
        self._head = orjson.dumps(answer.head(chunk=True))[:-1]
        self._usage = b',"usage":null' if answer.request.include_usage else b""
        self._end = b',"finish_reason":null}]' + self._usage + b"}\n\n"
        self._said = b"}" if self._chat else b""
        self._plain_end = self._said + b',"logprobs":null' + self._end
        self._befores: list[bytes | None] = [None] * answer.choices
        self._offsets = [logprobs.Offsets() for _ in range(0 if self._chat else answer.choices)]

    def write(self, frames: Sequence[Frame]) -> bytes:
        """Every chunk that `frames` become, in one piece."""
        parts: list[bytes] = []
        for frame in frames:
            index = frame["index"]
            before = self._befores[index]
            if before is None:
                before = self._begin(index, parts)
            if frame["op"] == "delta":
                parts.append(before)
                parts.append(orjson.dumps(frame["text"]))
                entries = frame.get("logprobs")
                parts.append(self._plain_end if entries is None else self._with_logprobs(index, entries))
            else:
                self._finish(index, frame["reason"], parts)
        return b"".join(parts)

    def usage(self) -> bytes:
        """The chunk without choices that `include_usage` asks for."""
        return (
            b"data: "
            + self._head
            + b',"choices":[],"usage":'
            + orjson.dumps(self._answer.usage.json())
            + b"}\n\n"
        )

    def _begin(self, index: int, parts: list[bytes]) -> bytes:
        """The constant part before a choice's text; its first chunk, which names the role, goes first."""
        start = b"data: " + self._head + b',"choices":[{"index":%d,' % index
        if self._chat:
            role = b'"delta":{"role":"assistant","content":""'
            parts.append(start + role + self._plain_end)
        before = start + (b'"delta":{"content":' if self._chat else b'"text":')
        self._befores[index] = before
        return before

    def _finish(self, index: int, reason: str, parts: list[bytes]) -> None:
        nothing = b'"delta":{}' if self._chat else b'"text":""'
        end = b',"logprobs":null,"finish_reason":' + orjson.dumps(reason) + b"}]" + self._usage + b"}\n\n"
        parts.append(b"data: " + self._head + b',"choices":[{"index":%d,' % index + nothing + end)

    def _with_logprobs(self, index: int, entries: list[dict[str, Any]]) -> bytes:
        if self._chat:
            shown: Any = {"content": logprobs.chat_content(entries), "refusal": None}
        else:
            shown = logprobs.completion(entries, self._alternatives or 0, self._offsets[index])
        return self._said + b',"logprobs":' + orjson.dumps(shown) + self._end
