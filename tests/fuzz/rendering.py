"""A conversation as ids and mask (`[message, …]` or `{"messages", "max_tokens"}`).

The mask is 1 where the assistant speaks and nowhere else; text never yields a special token; what is said
comes back out of the ids; what has no rendering is a ConversationError.
"""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from nanochat.chat import ConversationError, render_conversation, render_prompt, turns
from nanochat.tasks.registry import kinds
from nanochat.tasks.task import Generator
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

MAX_BYTES = 8192
IS_JSON = True
WORDS = (
    *SPECIAL_TOKENS, "messages", "max_tokens", "role", "content", "type", "text", "python", "python_output",
    "user", "assistant", "system", "\\ud800", "\\u0000", "\\u3000", "    ", "\\n\\n", "null", "[]", "{}",
    "日本", "'s", "12345",
)  # fmt: skip
ENDS = {"<|python_start|>": "<|python_end|>", "<|output_start|>": "<|output_end|>"}


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(iter(pydoc_data.topics.topics.values()), 400)


def seeds() -> Iterator[bytes]:
    """A conversation of every task that makes its own, and one with all there is in the format."""
    for kind in kinds().values():
        if issubclass(kind, Generator) and kind.name != "rg":
            yield json.dumps(kind("train", Path())[7].messages).encode()
    parts = [
        {"type": "text", "text": "It is "}, {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"}, {"type": "text", "text": "5<|assistant_end|>"},
    ]  # fmt: skip
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+3? <|bos|>"},
        {"role": "assistant", "content": parts}, {"role": "user", "content": "danke"},
    ]  # fmt: skip
    yield json.dumps(messages).encode()
    yield json.dumps({"messages": messages[:3], "max_tokens": 17}).encode()


def one(data: bytes) -> None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    limit = found.get("max_tokens") if isinstance(found, dict) else None
    messages = found.get("messages") if isinstance(found, dict) else found
    if isinstance(messages, list):
        check(messages, limit if type(limit) is int and 0 <= limit < 2**31 else 2**31)


def check(messages: list[Any], limit: int, *, renders: bool = False) -> None:
    """Raises AssertionError where the rendering of `messages` breaks a promise; `renders`: or lacks."""
    try:
        ids, mask = render_conversation(tokenizer(), messages, 2**31)
    except ConversationError as error:
        str(error).encode()
        assert len(str(error)) < 300 and not renders, error
        return
    assert len(ids) == len(mask) and set(mask) <= {0, 1}
    wanted = [
        (role, joined([(kind, clean(text)) for kind, text in parts])) for role, parts in turns(messages)
    ]
    assert [*spoken(ids, mask)] == wanted
    assert render_conversation(tokenizer(), messages, limit) == (ids[:limit], mask[:limit])
    if messages and messages[-1]["role"] == "user":
        assert render_prompt(tokenizer(), messages) == [*ids, tokenizer().special("<|assistant_start|>")]


def spoken(ids: list[int], mask: list[int]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Role and parts of each message, read back out of its tokens; the mask is checked on the way."""
    names = {token: name for name, token in tokenizer().specials.items()}
    assert names.get(ids[0]) == "<|bos|>" and mask[0] == 0
    at = 1

    def text() -> str:
        nonlocal at
        start = at
        while at < len(ids) and ids[at] not in names:
            at += 1
        return tokenizer().decode_bytes(ids[start:at]).decode()  # whole characters, always

    def special(name: str, learned: int) -> None:
        nonlocal at
        assert (names.get(ids[at]), mask[at]) == (name, learned), f"token {at}: no {name}"
        at += 1

    while at < len(ids):
        start = at
        if names.get(ids[at]) == "<|user_start|>":
            special("<|user_start|>", 0)
            said = text()
            special("<|user_end|>", 0)
            assert not any(mask[start:at])
            yield "user", joined([("text", said)])
            continue
        special("<|assistant_start|>", 0)
        parts: list[tuple[str, str]] = []
        while names.get(ids[at]) != "<|assistant_end|>":
            begin, opened = at, names.get(ids[at])
            if opened is None:
                parts.append(("text", text()))
                assert all(mask[begin:at])
                continue
            learned = int(opened == "<|python_start|>")
            special(opened, learned)
            parts.append(("python" if learned else "python_output", text()))
            special(ENDS[opened], learned)
            assert set(mask[begin:at]) == {learned}
        special("<|assistant_end|>", 1)
        yield "assistant", parts


def joined(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Texts that follow each other as one, empty ones left out: in tokens they cannot be told apart."""
    found: list[tuple[str, str]] = []
    for kind, text in parts:
        if kind == "text" and found and found[-1][0] == "text":
            found[-1] = ("text", found[-1][1] + text)
        elif kind != "text" or text:
            found.append((kind, text))
    return found


def clean(text: str) -> str:
    """`text` as a tokenizer takes it: halves of a character become U+FFFD, two that fit one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
