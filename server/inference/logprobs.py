"""Logarithms of probabilities in the shapes of chat and of plain completions."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


def chat_content(entries: Sequence[Json]) -> list[Json]:
    """`logprobs.content` of a chat choice."""
    return [{**_chat(entry), "top_logprobs": [_chat(top) for top in entry["top"]]} for entry in entries]


def _chat(entry: Json) -> Json:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]}


class Offsets:
    """Where in a choice's text each token begins, in characters, also when tokens share one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def next(self, token: bytes) -> int:
        begins = self._characters
        self._characters += len(self._decoder.decode(token))
        return begins


def completion(entries: Sequence[Json], alternatives: int, offsets: Offsets) -> Json:
    """`logprobs` of a completion's choice, or of one chunk of it."""
    tops = [_tops(entry) if alternatives and entry["logprob"] is not None else None for entry in entries]
    return {
        "tokens": [_name(entry) for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": tops if alternatives else None,
        "text_offset": [offsets.next(bytes(entry["bytes"])) for entry in entries],
    }


def _tops(entry: Json) -> dict[str, float]:
    """By the token's text; the chosen one is always among them."""
    found = {_name(top): top["logprob"] for top in entry["top"]}
    found.setdefault(_name(entry), entry["logprob"])
    return found


def _name(entry: Json) -> str:
    """The token's text; one that is part of a character has its bytes as a name, as OpenAI writes them."""
    text: str = entry["token"]
    if "\ufffd" not in text:
        return text
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry["bytes"])
