"""Token ids as text while they arrive: whole characters only, cut before a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from nanochat.tokenizer import Tokenizer


class TextStream:
    """Text of one sequence. What might begin a stop string, or a character, is held back until clear."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """New text after `token`; empty while it is held back or after a stop string."""
        return self._take(self._decoder.decode(self._tokenizer.bytes_of(token)))

    def end(self) -> str:
        """What was still held back, when the sequence has ended by itself."""
        text = self._take(self._decoder.decode(b"", True)) + ("" if self.stopped else self._held)
        self._held = ""
        return text

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
