"""Chat requests as OpenAI clients write them, and what is answered; for the chat page's small server.

Not covered: tools, logprobs, response formats: they are refused by name.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
#: refused when they ask for something: name → values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
}


class RequestError(Exception):
    """A request that has no answer: status and OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str | None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @property
    def body(self) -> Json:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class _Lenient(BaseModel):
    """Clients send many fields that change nothing here (user, metadata, store, …): they are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class TextPart(_Lenient):
    type: Literal["text"]
    text: str


class Message(_Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Lenient):
    include_usage: bool | None = False


Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class ChatRequest(_Lenient):
    """The fields that count. None: as the page's flags say, or as OpenAI has it."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], float] | None = None
    n: int | None = Field(default=None, ge=1, le=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def frame(self, max_tokens: int, temperature: float, top_k: int) -> Json:
        """The engine's `generate`; the arguments count where the request says nothing."""
        system = "\n\n".join(m.text() for m in self.messages if m.role in ("system", "developer"))
        messages = [{"role": "system", "content": system}] if system else []
        for message in self.messages:
            if message.role in ("user", "assistant"):
                messages.append({"role": message.role, "content": message.text()})
        given: Json = {
            "temperature": self.temperature, "top_k": None if self.top_k is None else max(0, self.top_k),
            "top_p": self.top_p, "min_p": self.min_p, "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty, "repetition_penalty": self.repetition_penalty,
            "logit_bias": self.logit_bias, "n": self.n,
        }  # fmt: skip
        return {
            "messages": messages,
            "max_tokens": self.max_completion_tokens or self.max_tokens or max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "seed": (secrets.randbits(62) if self.seed is None else self.seed) & (2**63 - 1),
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop or [],
            **{name: value for name, value in given.items() if value is not None},
        }


def parse(body: bytes) -> ChatRequest:
    """Raises RequestError that names the field."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.", "invalid_json") from None
    if not isinstance(data, dict):
        raise RequestError(400, "The body must be a JSON object.", "invalid_json")
    for name, harmless in UNSUPPORTED.items():
        if name in data and data[name] not in harmless:
            raise RequestError(400, f"{name} is not supported here.", "unsupported_parameter", name)
    try:
        return ChatRequest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = _where(first["loc"], data)
        raise RequestError(400, f"{where}: {first['msg']}", "invalid_value", where) from None


def _where(location: Sequence[int | str], data: Any) -> str:
    """The path to the faulty value, without the names that pydantic gives to the members of a union."""
    path: list[str] = []
    for part in location:
        if isinstance(data, dict):
            path.append(str(part))
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            path.append(str(part))
            data = data[part]
    return ".".join(path)


def event(body: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


class Shapes:
    """Frames of one answer as OpenAI's objects. `head`: id, created and model."""

    def __init__(self, head: Json, include_usage: bool) -> None:
        self._head, self._more = head, {"usage": None} if include_usage else {}
        self._started: set[int] = set()
        self._prompt = self._cached = self._generated = 0

    def accepted(self, frame: Json) -> None:
        """The engine's first word."""
        self._prompt = frame["prompt_tokens"]

    def chunks(self, frame: Json) -> list[Json]:
        """What a stream says next; the first chunk of every choice names the role."""
        index, made = frame["index"], []
        if index not in self._started:
            self._started.add(index)
            made.append(self._chunk(index, {"role": "assistant", "content": ""}, None))
        if frame["op"] == "delta":
            made.append(self._chunk(index, {"content": frame["text"]}, None))
        else:
            self.count(frame)
            made.append(self._chunk(index, {}, frame["reason"]))
        return made

    def _chunk(self, index: int, delta: Json, reason: str | None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **self._more}

    def count(self, finish: Json) -> None:
        """Add a finished choice to what was used."""
        self._generated += finish["tokens"]
        self._cached = max(self._cached, finish["cached_tokens"])

    def usage(self) -> Json:
        return {
            "prompt_tokens": self._prompt, "completion_tokens": self._generated,
            "total_tokens": self._prompt + self._generated,
            "prompt_tokens_details": {"cached_tokens": self._cached},
        }  # fmt: skip

    def last_chunk(self) -> Json:
        """The chunk without choices that `include_usage` asks for."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage()}

    def completion(self, texts: Sequence[str], reasons: Sequence[str]) -> Json:
        """The answer in one piece."""
        choices = [
            {
                "index": index, "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None, "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]  # fmt: skip
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self.usage()}
