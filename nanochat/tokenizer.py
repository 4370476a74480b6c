"""Byte-level BPE tokenizer: rustbpe trains it, tiktoken runs it, JSON stores it (no pickle).

Ids: the 256 bytes first, then merges, then the nine special tokens. Encoding text never yields a
special token: whoever writes `<|assistant_end|>` gets the ids of these characters.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rustbpe
import tiktoken

#: GPT-4's split pattern with numbers in groups of two digits (better for small vocabularies)
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
FILE = "tokenizer.json"
FORMAT = "nanochat-bpe-1"
#: blanks in a row that are split as one piece: at a million the pattern's matcher runs out of its stack
MAX_BLANKS = 500_000
_BLANKS = re.compile(r"\s{64,}")


class Tokenizer:
    """Text ↔ token ids. Make one with `train`, `load` or `from_json`."""

    def __init__(self, ranks: dict[bytes, int], pattern: str = SPLIT_PATTERN) -> None:
        self.pattern = pattern
        self.ranks = ranks
        self.specials = {token: len(ranks) + i for i, token in enumerate(SPECIAL_TOKENS)}
        self.vocab_size = len(ranks) + len(SPECIAL_TOKENS)
        self._encoding = tiktoken.Encoding(
            "nanochat", pat_str=pattern, mergeable_ranks=ranks, special_tokens=self.specials
        )

    @classmethod
    def train(cls, documents: Iterator[str], vocab_size: int) -> Tokenizer:
        """Learn merges from `documents`.

        The result has fewer than `vocab_size` tokens when the text has too few distinct pairs.
        Raises ValueError below 265 (256 bytes and 9 special tokens).
        """
        merges = vocab_size - len(SPECIAL_TOKENS)
        if merges < 256:
            raise ValueError(
                f"vocab_size {vocab_size} is below {256 + len(SPECIAL_TOKENS)}: bytes and special tokens"
            )
        trainer = rustbpe.Tokenizer()  # type: ignore[attr-defined]  # a compiled module without stubs
        pieces = (piece for text in documents for piece in _pieces(text))
        trainer.train_from_iterator(pieces, merges, pattern=SPLIT_PATTERN)
        return cls({bytes(token): rank for token, rank in trainer.get_mergeable_ranks()})

    # ------------------------------------------------------------ storage

    def to_json(self) -> str:
        """The whole tokenizer as JSON: pattern, tokens in order of rank (base64), special tokens."""
        tokens = sorted(self.ranks, key=self.ranks.__getitem__)
        return json.dumps(
            {
                "format": FORMAT,
                "pattern": self.pattern,
                "tokens": [base64.b64encode(token).decode() for token in tokens],
                "special_tokens": list(SPECIAL_TOKENS),
            },
            indent=0,
        )

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """The tokenizer that `to_json` wrote. Raises ValueError for anything else."""
        data = json.loads(text)
        if data.get("format") != FORMAT or tuple(data["special_tokens"]) != SPECIAL_TOKENS:
            raise ValueError(f"not a {FORMAT} tokenizer file")
        ranks = {base64.b64decode(token): rank for rank, token in enumerate(data["tokens"])}
        return cls(ranks, data["pattern"])

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into an existing directory."""
        (directory / FILE).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read a tokenizer or checkpoint directory (or the JSON file itself). Raises FileNotFoundError."""
        file = directory / FILE if directory.is_dir() else directory
        return cls.from_json(file.read_text(encoding="utf-8"))

    @cached_property
    def sha256(self) -> str:
        """Identity of the tokenizer: equal exactly when ids mean the same."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    # ------------------------------------------------------------ text and ids

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens written in it stay text."""
        if len(text) <= MAX_BLANKS:
            return self._encoding.encode_ordinary(text)
        return [token for piece in _pieces(text) for token in self._encoding.encode_ordinary(piece)]

    def encode_batch(self, texts: Sequence[str], threads: int = 2) -> list[list[int]]:
        """`encode` for many texts at once."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.encode, texts))

    def encode_arrays(self, texts: Sequence[str], threads: int = 1) -> list[np.ndarray[Any, Any]]:
        """`<|bos|>` and the ids of each text, as uint32: four times as fast as lists, and without the GIL."""

        def encode(text: str) -> np.ndarray[Any, Any]:
            ids = [self._encoding.encode_to_numpy(piece, disallowed_special=()) for piece in _pieces(text)]
            return np.concatenate((np.array([self.bos], np.uint32), *ids))

        if threads <= 1:
            return [encode(text) for text in texts]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(encode, texts))

    def special(self, token: str) -> int:
        """Id of a special token. Raises KeyError."""
        return self.specials[token]

    @property
    def bos(self) -> int:
        return self.specials["<|bos|>"]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of `ids`; they may end inside a character. Special tokens give their names."""
        return b"".join(self.bytes_of(token) for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, with U+FFFD for bytes that are no UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def bytes_of(self, token: int) -> bytes:
        return self._encoding.decode_single_token_bytes(token)

    @cached_property
    def token_bytes(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Bytes per token, int32[vocab]; 0 for special tokens.

        Counts raw bytes. Upstream nanochat counts 3 for a lone byte that is no UTF-8, so its
        bits per byte differ slightly from ours on such text.
        """
        lengths = [len(token) for token in sorted(self.ranks, key=self.ranks.__getitem__)]
        return np.array(lengths + [0] * len(SPECIAL_TOKENS), dtype=np.int32)


def _pieces(text: str) -> list[str]:
    """`text` cut where more than `MAX_BLANKS` blanks follow each other; as good as always one piece."""
    if len(text) <= MAX_BLANKS:
        return [text]
    cuts = [0]
    for run in _BLANKS.finditer(text):
        cuts += range(run.start() + MAX_BLANKS, run.end(), MAX_BLANKS)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]
