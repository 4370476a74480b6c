"""The chat format: conversations as token ids, never as one string that would be parsed again.

    <|bos|><|user_start|>…<|user_end|><|assistant_start|>…<|assistant_end|><|user_start|>…

An assistant's content may be parts: text, python (a call of the calculator) and python_output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.tokenizer import Tokenizer

Message = Mapping[str, Any]


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

    for position, message in enumerate(_without_system(messages)):
        expected = "assistant" if position % 2 else "user"
        role, content = message.get("role"), message.get("content")
        if role != expected:
            raise ConversationError(f"message {position} is from {role!r}, expected {expected!r}")
        if role == "user":
            if not isinstance(content, str):
                raise ConversationError(f"message {position}: a user's content is text")
            add([special("<|user_start|>"), *tokenizer.encode(content), special("<|user_end|>")], 0)
            continue
        add([special("<|assistant_start|>")], 0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or []:
            tokens = tokenizer.encode(part["text"])
            match part["type"]:
                case "text":
                    add(tokens, 1)
                case "python":
                    add([special("<|python_start|>"), *tokens, special("<|python_end|>")], 1)
                case "python_output":
                    add([special("<|output_start|>"), *tokens, special("<|output_end|>")], 0)
                case other:
                    raise ConversationError(f"message {position}: unknown part {other!r}")
        add([special("<|assistant_end|>")], 1)
    return ids[:max_tokens], mask[:max_tokens]


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation that ends with the user, up to where the assistant begins to speak."""
    if not messages or messages[-1].get("role") != "user":
        raise ConversationError("the last message must come from the user")
    ids, _ = render_conversation(tokenizer, messages, max_tokens=2**31)
    return [*ids, tokenizer.special("<|assistant_start|>")]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    if not messages or messages[0].get("role") != "system":
        return list(messages)
    if len(messages) < 2 or messages[1].get("role") != "user":
        raise ConversationError("a system message must be followed by a user message")
    system, first, *rest = messages
    if not isinstance(system.get("content"), str) or not isinstance(first.get("content"), str):
        raise ConversationError("system and user content must be text")
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
