"""Requests of the OpenAI surface as far as this engine honours them; the rest is refused by name."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.inference.errors import OpenAIError

MAX_TEXT = 1_000_000
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Number = Annotated[float, Field(allow_inf_nan=False)]

#: refused when they ask for something: name → values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "min_p": (None, 0),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}


class Lenient(BaseModel):
    """Clients send many fields that change nothing here (user, metadata, store, …): they are ignored."""

    model_config = ConfigDict(extra="ignore")


class StreamOptions(Lenient):
    include_usage: bool = False


class Generation(Lenient):
    """What chat and plain completions share."""

    model: str = Field(max_length=256)
    temperature: Number | None = Field(default=None, ge=0, le=2)
    top_p: Number | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    n: int | None = Field(default=None, ge=1, le=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, harmless in UNSUPPORTED.items():
                if name in data and data[name] not in harmless:
                    raise OpenAIError(
                        400,
                        f"{name} is not supported by this engine.",
                        code="unsupported_parameter",
                        param=name,
                    )
        return data

    def wanted_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def frame(self) -> dict[str, Any]:
        """The engine's `generate`, prompt apart."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "max_tokens": self.wanted_tokens(),
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": max(0, self.top_k or 0),
            "seed": (secrets.randbits(62) if self.seed is None else self.seed) & (2**63 - 1),
            "stop": stops,
            "n": self.n or 1,
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


class ChatRequest(Generation):
    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)

    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def conversation(self) -> list[dict[str, str]]:
        """Messages as the chat format knows them: one system text first, then user and assistant in turn.

        Raises OpenAIError for a conversation that cannot be put so.
        """
        system = "\n\n".join(m.text() for m in self.messages if m.role in ("system", "developer"))
        turns: list[dict[str, str]] = []
        for index, message in enumerate(self.messages):
            if message.role in ("system", "developer"):
                continue
            role = "user" if message.role == "tool" else message.role
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += "\n\n" + message.text()
            elif not turns and role == "assistant":
                raise OpenAIError(
                    400,
                    f"messages[{index}] is from the assistant, but the user must begin.",
                    code="invalid_value", param=f"messages.{index}",
                )  # fmt: skip
            else:
                turns.append({"role": role, "content": message.text()})
        if not turns or turns[-1]["role"] != "user":
            raise OpenAIError(
                400, "The last message must come from the user.", code="invalid_value", param="messages"
            )
        return [{"role": "system", "content": system}, *turns] if system else turns


TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=1_000_000)]


class CompletionRequest(Generation):
    prompt: Annotated[str, Field(max_length=MAX_TEXT)] | TokenIds | list[str] | list[TokenIds] = ""

    def wanted_tokens(self) -> int | None:
        return 16 if self.max_tokens is None else self.max_tokens

    def prompts(self) -> list[dict[str, Any]]:
        """The engine's prompt fields, one per prompt. Raises OpenAIError beyond 64 prompts."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [{"prompt": prompt}]
        if not prompt or isinstance(prompt[0], int):
            return [{"ids": prompt}]
        if len(prompt) > 64:
            raise OpenAIError(400, "At most 64 prompts at once.", code="invalid_value", param="prompt")
        return [{"prompt": p} if isinstance(p, str) else {"ids": p} for p in prompt]


class TokenizeRequest(Lenient):
    model: str = Field(default="latest", max_length=256)
    text: str = Field(max_length=MAX_TEXT)


class DetokenizeRequest(Lenient):
    model: str = Field(default="latest", max_length=256)
    ids: TokenIds
