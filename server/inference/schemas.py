"""Requests of the OpenAI surface as far as this engine honours them; the rest is refused by name."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from server.inference.errors import invalid

MAX_TEXT = 1_000_000
MAX_IDS = 1_000_000
MAX_BIASES = 1024
#: prompts × n of one request
MAX_SEQUENCES = 256
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Alternatives = Annotated[int, Field(ge=0, le=20)]

#: as the schema says what is checked below, with a sentence in OpenAI's shape
BIASES: list[JsonValue] = [
    {
        "type": "object",
        "maxProperties": MAX_BIASES,
        "propertyNames": {"pattern": "^[0-9]{1,10}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    {"type": "null"},
]
_IDS: dict[str, JsonValue] = {
    "type": "array",
    "maxItems": MAX_IDS,
    "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31},
}
_TEXT: dict[str, JsonValue] = {"type": "string", "maxLength": MAX_TEXT}
PROMPTS: list[JsonValue] = [
    _TEXT,
    _IDS,
    {"type": "array", "items": _TEXT},
    {"type": "array", "items": _IDS},
]

#: refused when they ask for something: name → values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "suffix": (None, ""),
    "best_of": (None, 1),
}


class Lenient(BaseModel):
    """Clients send many fields that change nothing here (user, metadata, store, …): they are ignored."""

    model_config = ConfigDict(extra="ignore")


class StreamOptions(Lenient):
    include_usage: bool | None = False


class Generation(Lenient):
    """What chat and plain completions share."""

    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = UNSUPPORTED

    model: str = Field(max_length=256)
    temperature: Number | None = Field(default=None, ge=0, le=2)
    top_p: Number | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: Number | None = Field(default=None, ge=0, le=1)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Number | None = Field(default=None, gt=0, le=10)
    logit_bias: dict[str, Number] | None = Field(default=None, json_schema_extra={"anyOf": BIASES})
    n: int | None = Field(default=None, ge=1, le=64)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = False
    """Go on to `max_tokens`, as vLLM has it: for benchmarks."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, harmless in cls.unsupported.items():
                if name in data and data[name] not in harmless:
                    message = f"{name} is not supported by this engine."
                    raise invalid(message, name, "unsupported_parameter")
        return data

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _few_biases(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_BIASES:
            raise invalid(f"logit_bias has {len(value)} entries; at most {MAX_BIASES} count.", "logit_bias")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _check_biases(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        for key, bias in (biases or {}).items():
            if not (key.isascii() and key.isdigit() and len(key) <= 10):
                raise invalid(f"logit_bias: {key[:40]!r} is no token id.", "logit_bias")
            if not -100 <= bias <= 100:
                raise invalid(f"logit_bias of token {key} is not between -100 and 100.", "logit_bias")
        return biases

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def choices(self) -> int:
        """Answers per prompt."""
        return self.n or 1

    def wanted_tokens(self) -> int | None:
        """Tokens to generate; None: as many as fit."""
        raise NotImplementedError

    def alternatives(self) -> int | None:
        """Logarithms of probabilities: None for none, else how many alternatives beside the chosen token."""
        raise NotImplementedError

    def frames(self) -> list[dict[str, Any]]:
        """The engine's `generate`, one per prompt. Raises OpenAIError."""
        raise NotImplementedError

    def sampling(self) -> dict[str, Any]:
        """What is the same for every prompt."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "max_tokens": self.wanted_tokens(),
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": max(0, self.top_k or 0),
            "min_p": self.min_p or 0.0,
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "repetition_penalty": 1.0 if self.repetition_penalty is None else self.repetition_penalty,
            "logit_bias": self.logit_bias or {},
            "logprobs": self.alternatives(),
            "echo": False,
            "seed": (secrets.randbits(62) if self.seed is None else self.seed) & (2**63 - 1),
            "stop": stops,
            "n": self.choices,
            "cache": "",
            "ignore_eos": bool(self.ignore_eos),
        }


class TextPart(Lenient):
    type: Literal["text"]
    text: str = Field(max_length=MAX_TEXT)


class Message(Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, Field(max_length=MAX_TEXT)] | list[TextPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


def conversation(messages: list[Message]) -> list[dict[str, str]]:
    """Messages as the chat format knows them: one system text first, then user and assistant in turn.

    Raises OpenAIError for a conversation that cannot be put so.
    """
    system = "\n\n".join(m.text() for m in messages if m.role in ("system", "developer"))
    turns: list[dict[str, str]] = []
    for index, message in enumerate(messages):
        if message.role in ("system", "developer"):
            continue
        role = "user" if message.role == "tool" else message.role
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + message.text()
        elif not turns and role == "assistant":
            raise invalid(
                f"messages[{index}] is from the assistant, but the user must begin.", f"messages.{index}"
            )
        else:
            turns.append({"role": role, "content": message.text()})
    if not turns or turns[-1]["role"] != "user":
        raise invalid("The last message must come from the user.", "messages")
    return [{"role": "system", "content": system}, *turns] if system else turns


class ChatRequest(Generation):
    unsupported: ClassVar = {**UNSUPPORTED, "echo": (None, False)}

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    logprobs: bool | None = False
    top_logprobs: Alternatives | None = None

    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def alternatives(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs needs logprobs: true.", "top_logprobs")
        return self.top_logprobs or 0 if self.logprobs else None

    def frames(self) -> list[dict[str, Any]]:
        return [{**self.sampling(), "messages": self.conversation()}]

    def conversation(self) -> list[dict[str, str]]:
        """Messages as the chat format knows them. Raises OpenAIError."""
        return conversation(self.messages)


class CompletionRequest(Generation):
    prompt: Any = Field(default="", json_schema_extra={"anyOf": PROMPTS})
    max_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    logprobs: Alternatives | None = None
    echo: bool | None = False

    def wanted_tokens(self) -> int | None:
        if self.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens may be 0 only together with echo.", "max_tokens")
        return 16 if self.max_tokens is None else self.max_tokens

    def alternatives(self) -> int | None:
        return self.logprobs

    def frames(self) -> list[dict[str, Any]]:
        same = {**self.sampling(), "echo": bool(self.echo)}
        prompts = prompts_of(self.prompt)
        if len(prompts) * self.choices > MAX_SEQUENCES:
            raise invalid(f"At most {MAX_SEQUENCES} answers (prompts × n) at once.", "prompt")
        return [{**same, **prompt} for prompt in prompts]


def prompts_of(prompt: Any) -> list[dict[str, Any]]:
    """Text, token ids, or a list of either, as the engine's prompt fields. Raises OpenAIError."""
    if isinstance(prompt, str):
        return [{"prompt": _text(prompt)}]
    if isinstance(prompt, list):
        if not prompt or _are_ids(prompt):
            return [{"ids": _ids(prompt)}]
        if all(isinstance(one, str) for one in prompt):
            return [{"prompt": _text(one)} for one in prompt]
        if all(isinstance(one, list) and _are_ids(one) for one in prompt):
            return [{"ids": _ids(one)} for one in prompt]
    raise invalid("prompt must be a string, a list of token ids, or a list of one of these.", "prompt")


def _are_ids(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise invalid(f"A prompt has more than {MAX_TEXT} characters.", "prompt")
    return text


def _ids(ids: list[int]) -> list[int]:
    if len(ids) > MAX_IDS:
        raise invalid(f"A prompt has more than {MAX_IDS} token ids.", "prompt")
    if not all(0 <= token < 2**31 for token in ids):
        raise invalid("A token id is negative or too large.", "prompt")
    return ids


TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=MAX_IDS)]


class TokenizeRequest(Lenient):
    """`text`, or `messages` as chat would render them."""

    model: str = Field(default="latest", max_length=256)
    text: str | None = Field(default=None, max_length=MAX_TEXT)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=1000)

    def frame(self) -> dict[str, Any]:
        """The engine's `tokenize`. Raises OpenAIError."""
        if (self.text is None) == (self.messages is None):
            raise invalid("Give either text or messages.", "text", "missing_required_parameter")
        if self.messages is not None:
            return {"op": "tokenize", "messages": conversation(self.messages)}
        return {"op": "tokenize", "text": self.text}


class DetokenizeRequest(Lenient):
    model: str = Field(default="latest", max_length=256)
    ids: TokenIds
