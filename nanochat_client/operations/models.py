"""Models that answer: lists, loading, tokens, chat. Everything else of /v1 is for `client.openai()`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from nanochat_client.errors import ServerError
from nanochat_client.operations.core import Message, Operation, parser


def models() -> Operation[list[dict[str, Any]]]:
    """Models that answer, as `/v1/models` lists them: aliases first, then newest first."""

    def parse(body: bytes) -> list[dict[str, Any]]:
        answer: dict[str, Any] = parser(dict[str, Any])(body)
        return list(answer.get("data", []))

    return Operation("GET", "/v1/models", parse, repeatable=True)


def get_model(name: str) -> Operation[dict[str, Any]]:
    """One model of that list. Raises NotFound."""
    return Operation("GET", f"/v1/models/{quote(name)}", parser(dict[str, Any]), repeatable=True)


def load_model(name: str) -> Operation[dict[str, Any]]:
    """Load a model before its first request; returns when it is ready."""
    return Operation("POST", f"/models/{quote(name)}/load", parser(dict[str, Any]), repeatable=True)


def unload_model(name: str) -> Operation[dict[str, Any]]:
    """End a model's engine; requests that run in it get an error."""
    return Operation("POST", f"/models/{quote(name)}/unload", parser(dict[str, Any]), repeatable=True)


def tokenize(text: str | Sequence[Message], *, model: str = "latest") -> Operation[list[int]]:
    """Ids of a text, or of messages as chat renders them; special tokens written in them stay text."""

    def parse(body: bytes) -> list[int]:
        return list(parser(dict[str, Any])(body)["ids"])

    said: dict[str, Any] = (
        {"text": text} if isinstance(text, str) else {"messages": [dict(message) for message in text]}
    )
    return Operation("POST", "/tokenize", parse, body={"model": model, **said}, repeatable=True)


def detokenize(ids: Sequence[int], *, model: str = "latest") -> Operation[str]:
    """Text of token ids."""

    def parse(body: bytes) -> str:
        return str(parser(dict[str, Any])(body)["text"])

    said = {"model": model, "ids": list(ids)}
    return Operation("POST", "/detokenize", parse, body=said, repeatable=True)


def chat(messages: Sequence[Message], *, model: str = "latest", **options: Any) -> Operation[str]:
    """The answer to a conversation. `options`: temperature, max_tokens, top_k, seed …"""

    def parse(body: bytes) -> str:
        answer: dict[str, Any] = parser(dict[str, Any])(body)
        return str(answer["choices"][0]["message"]["content"] or "")

    body = {"model": model, "messages": [dict(message) for message in messages], **options}
    return Operation("POST", "/v1/chat/completions", parse, body=body)


def chat_stream(messages: Sequence[Message], model: str, options: dict[str, Any]) -> Operation[None]:
    """The answer as server-sent events; read its lines with `chat_delta`."""
    body = {"model": model, "messages": [dict(message) for message in messages], **options, "stream": True}
    return Operation("POST", "/v1/chat/completions", lambda _: None, body=body)


def chat_delta(line: str) -> str | None:
    """The text that one line of a streamed answer adds; None at its end."""
    if not line.startswith("data:"):
        return ""
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        return None
    chunk = json.loads(data)
    if error := chunk.get("error"):
        raise ServerError(str(error.get("message")), code=str(error.get("code") or "error"))
    return "".join(str(choice.get("delta", {}).get("content") or "") for choice in chunk.get("choices", []))
