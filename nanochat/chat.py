"""The chat format: conversations as token ids, never as one string that would be parsed again.

    <|bos|><|user_start|>…<|user_end|><|assistant_start|>…<|assistant_end|><|user_start|>…

An assistant's content may be parts: text, python (a call of the calculator) and python_output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

Message = Mapping[str, Any]
#: what an assistant's content may be made of
PARTS = ("text", "python", "python_output")


class ConversationError(ValueError):
    """A conversation that has no rendering; the text says which message and why."""


def render_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], max_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids and mask of a conversation, cut at `max_tokens`. Mask 1: a token the model learns to say.

    A leading system message is joined to the first user message. Raises ConversationError unless
    user and assistant alternate, starting with user.
    """
    special = tokenizer.special
    ids = [tokenizer.bos]
    mask = [0]

    def add(tokens: Sequence[int], learned: int) -> None:
        ids.extend(tokens)
        mask.extend([learned] * len(tokens))

    for role, parts in turns(messages):
        if role == "user":
            ((_, text),) = parts
            add([special("<|user_start|>"), *tokenizer.encode(text), special("<|user_end|>")], 0)
            continue
        add([special("<|assistant_start|>")], 0)
        for kind, text in parts:
            tokens = tokenizer.encode(text)
            if kind == "text":
                add(tokens, 1)
            elif kind == "python":
                add([special("<|python_start|>"), *tokens, special("<|python_end|>")], 1)
            else:
                add([special("<|output_start|>"), *tokens, special("<|output_end|>")], 0)
        add([special("<|assistant_end|>")], 1)
    return ids[:max_tokens], mask[:max_tokens]


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation that ends with the user, up to where the assistant begins to speak."""
    if not messages or _field(messages[-1], "role") != "user":
        raise ConversationError("the last message must come from the user")
    ids, _ = render_conversation(tokenizer, messages, max_tokens=2**31)
    return [*ids, tokenizer.special("<|assistant_start|>")]


def turns(messages: Sequence[Message]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Role and parts (kind, text) of each message, the system's joined to the first user's.

    Raises ConversationError for what has no rendering.
    """
    spoken = _without_system(messages)
    for position, message in enumerate(spoken, first := len(messages) - len(spoken)):
        expected = "assistant" if (position - first) % 2 else "user"
        role, content = _field(message, "role"), _field(message, "content")
        if role != expected:
            raise ConversationError(f"message {position} is from {_short(role)}, expected {expected!r}")
        if isinstance(content, str):
            yield expected, [("text", content)]
        elif role == "user":
            raise ConversationError(f"message {position}: a user's content is text")
        elif isinstance(content, list | tuple):
            yield expected, [_part(part, position) for part in content]
        else:
            raise ConversationError(f"message {position}: content is text or a list of parts")


def _part(part: Any, position: int) -> tuple[str, str]:
    kind, text = _field(part, "type"), _field(part, "text")
    if kind not in PARTS:
        raise ConversationError(f"message {position}: unknown part {_short(kind)}")
    if not isinstance(text, str):
        raise ConversationError(f"message {position}: a part of type {kind!r} has no text")
    return kind, text


def _field(of: Any, name: str) -> Any:
    return of.get(name) if isinstance(of, Mapping) else None


def _short(value: Any) -> str:
    """What stands in place of a name, in a few characters."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _without_system(messages: Sequence[Message]) -> list[Message]:
    if not messages or _field(messages[0], "role") != "system":
        return list(messages)
    if len(messages) < 2 or _field(messages[1], "role") != "user":
        raise ConversationError("a system message must be followed by a user message")
    system, first, *rest = messages
    if not isinstance(system.get("content"), str) or not isinstance(first.get("content"), str):
        raise ConversationError("system and user content must be text")
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
