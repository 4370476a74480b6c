"""Batches of token ids from parquet shards, the same stream again after a resume.

Row groups are dealt to the ranks in turn. Each rank joins its documents, every one behind <|bos|>, to
one endless stream and cuts it into batches. No token is lost or repeated within an epoch.
Not covered: shuffling between epochs; the shards are shuffled when they are built.

# Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nanochat.errors import DataError
from nanochat.sources.shards import open_shard, read_group, split_shards
from nanochat.tokenizer import Tokenizer

ENCODE_DOCS = 128  # encoded at a time


@dataclass(frozen=True)
class Position:
    """A place in a rank's stream: epoch, its n-th row group, document in it, token of the document."""

    epoch: int = 0
    group: int = 0
    doc: int = 0
    token: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def position_of_rank(states: list[dict[str, int]], rank: int, size: int) -> Position | None:
    """Where rank `rank` of `size` goes on after `states` (one per rank that saved them).

    With as many ranks as before: exactly there. With another number: at the earliest row group that some
    rank had not finished, so no text is left out, and some is read twice.
    """
    if not states:
        return None
    if len(states) == size:
        return Position(**states[rank])
    epoch = min(state["epoch"] for state in states)
    earliest = min(
        state["group"] * len(states) + old for old, state in enumerate(states) if state["epoch"] == epoch
    )
    return Position(epoch=epoch, group=max(0, -(-(earliest - rank) // size)))


class Loader:
    """Endless batches `(x_BT, y_BT)`; y is x one token later. `position` is where the next one begins."""

    def __init__(
        self,
        directory: Path,
        tokenizer: Tokenizer,
        *,
        split: Literal["train", "val"],
        batch: int,
        seq_len: int,
        rank: int = 0,
        size: int = 1,
        position: Position | None = None,
        threads: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        train, val = split_shards(directory)
        self._files = train if split == "train" else [val]
        groups = [
            (file, group) for file in self._files for group in range(open_shard(file).metadata.num_row_groups)
        ]
        if not groups:
            raise DataError(
                f"{directory}: the {split} shards are empty; delete them and build the corpus again"
            )
        # fewer row groups than ranks: some ranks share one, at different offsets of nothing; better than none
        self._groups = groups[rank::size] or [groups[rank % len(groups)]]
        self._tokenizer = tokenizer
        self._batch, self._seq_len, self._threads = batch, seq_len, threads
        self._start = position or Position()
        self._device = torch.device(device)
        self._read = self._documents(self._start)
        self._docs: deque[tuple[Position, np.ndarray[Any, np.dtype[np.int32]]]] = deque()
        self._buffered = 0
        self._skip = self._start.token

    @property
    def position(self) -> Position:
        """Give this to a new Loader and it goes on with the very next token."""
        if not self._docs:
            return self._start
        at, _ = self._docs[0]
        return Position(at.epoch, at.group, at.doc, self._skip)

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch, int64 (B, T) each. Raises DataError when an epoch holds no text at all."""
        wanted = self._batch * self._seq_len + 1
        while self._buffered - self._skip < wanted:
            place, tokens = next(self._read)
            self._docs.append((place, tokens))
            self._buffered += len(tokens)
        stream = torch.from_numpy(self._peek(wanted).astype(np.int64))
        self._advance(wanted - 1)  # the last token is a target here and an input of the next batch
        x_BT = stream[:-1].view(self._batch, self._seq_len)
        y_BT = stream[1:].view(self._batch, self._seq_len)
        if self._device.type == "cuda":
            return (
                x_BT.pin_memory().to(self._device, non_blocking=True),
                y_BT.pin_memory().to(self._device, non_blocking=True),
            )
        return x_BT, y_BT

    def _peek(self, count: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        parts = []
        skip = self._skip
        for _, tokens in self._docs:
            part = tokens[skip : skip + count]
            parts.append(part)
            count -= len(part)
            skip = 0
            if count == 0:
                break
        return np.concatenate(parts)

    def _advance(self, count: int) -> None:
        self._skip += count
        while self._docs and self._skip >= len(self._docs[0][1]):
            _, tokens = self._docs.popleft()
            self._skip -= len(tokens)
            self._buffered -= len(tokens)

    def _documents(self, start: Position) -> Iterator[tuple[Position, np.ndarray[Any, np.dtype[np.int32]]]]:
        epoch, first_group, first_doc = start.epoch, start.group, start.doc
        while True:
            found = False
            for number in range(first_group, len(self._groups)):
                file, group = self._groups[number]
                with open_shard(file) as parquet:
                    texts = read_group(parquet, group)
                for at in range(first_doc, len(texts), ENCODE_DOCS):
                    encoded = self._tokenizer.encode_batch(texts[at : at + ENCODE_DOCS], self._threads)
                    for offset, ids in enumerate(encoded):
                        found = True
                        tokens = np.array([self._tokenizer.bos, *ids], dtype=np.int32)
                        yield Position(epoch, number, at + offset), tokens
                first_doc = 0
            if not found and first_group == 0:
                raise DataError(f"{self._files[0].parent}: no document with text; build the corpus again")
            epoch, first_group = epoch + 1, 0
