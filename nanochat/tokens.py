"""A corpus as one endless stream of token ids, tokenised once, shard by shard, into mapped files.

`tokens-<tokenizer>/<shard>.bin` beside the parquet shards holds the ids (uint16, or uint32 above 65,536
tokens), every document behind `<|bos|>`. A shard is tokenised when it is first needed, the one after it
in the background. The stream begins again behind the last shard.

With `row` > 0 the documents are packed into rows of that many tokens, each beginning with a document:
whole documents by best fit, then one that is cut to fill the row. The rest of a cut document is not used.
Not covered: shuffling between epochs; the shards are shuffled when they are built.
"""

from __future__ import annotations

import bisect
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nanochat.errors import DataError
from nanochat.locks import file_lock
from nanochat.sources.shards import open_shard, read_group, split_shards
from nanochat.tokenizer import Tokenizer

Ids = np.ndarray[Any, np.dtype[Any]]


class TokenStream:
    """Random access to the endless stream: `stream.read(start, count)`.

    `lengths`: tokens of the first shards, known from a checkpoint; so that a host that never saw those
    shards need not tokenise them again to find its place. Threads of one process may share a stream.
    """

    def __init__(
        self,
        directory: Path,
        tokenizer: Tokenizer,
        *,
        split: Literal["train", "val"],
        row: int = 0,
        lengths: Sequence[int] = (),
        threads: int = 1,
    ) -> None:
        train, val = split_shards(directory)
        self._shards = train if split == "train" else [val]
        self._tokenizer, self._threads, self._row = tokenizer, threads, row
        self._suffix = f".rows{row}.bin" if row else ".bin"
        self._place = directory / f"tokens-{tokenizer.sha256[:16]}"
        self._dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
        self._mapped: dict[int, Ids] = {}
        self._lengths = dict(enumerate(lengths[: len(self._shards)]))
        self._ahead: threading.Thread | None = None

    @property
    def lengths(self) -> list[int]:
        """Tokens of the shards from the first on, as far as they are known without a gap."""
        found: list[int] = []
        while len(found) in self._lengths:
            found.append(self._lengths[len(found)])
        return found

    def total(self) -> int:
        """Tokens of one epoch; tokenises what is not yet. Raises DataError when there is none."""
        count = sum(self._length(number) for number in range(len(self._shards)))
        if count == 0:
            raise DataError(f"{self._place.parent}: no document with text; build the corpus again")
        return count

    def read(self, start: int, count: int) -> Ids:
        """Ids `start` to `start + count` of the stream, as int64."""
        out = np.empty(count, dtype=np.int64)
        filled = 0
        for number, offset in self._from(start):
            ids = self._map(number)
            part = ids[offset : offset + count - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            if filled == count:
                self._prepare_ahead(number + 1)
                return out
        raise AssertionError("the stream is endless")

    def _from(self, start: int) -> Iterator[tuple[int, int]]:
        """(shard, offset in it) of `start`, then every following shard from its beginning, for ever."""
        number = 0
        while start >= self._length(number):
            start -= self._length(number)
            number += 1
            if number == len(self._shards):
                start, number = start % self.total(), 0
        while True:
            yield number, start
            number, start = (number + 1) % len(self._shards), 0

    def _length(self, number: int) -> int:
        if number not in self._lengths:
            self._lengths[number] = len(self._map(number))
        return self._lengths[number]

    def _map(self, number: int) -> Ids:
        if number not in self._mapped:
            file = self._tokenised(number)
            empty = file.stat().st_size == 0
            self._mapped[number] = np.zeros(0, self._dtype) if empty else np.memmap(file, self._dtype, "r")
            known = self._lengths.setdefault(number, len(self._mapped[number]))
            if known != len(self._mapped[number]):
                raise DataError(
                    f"{self._shards[number]} has {len(self._mapped[number]):,} tokens, the checkpoint says "
                    f"{known:,}: the corpus has changed since; resume with the text it was trained on"
                )
        return self._mapped[number]

    def _tokenised(self, number: int) -> Path:
        """The file of ids of one shard, made when it is missing; one process makes it, others wait."""
        shard = self._shards[number]
        file = self._place / f"{shard.stem}{self._suffix}"
        if file.exists():
            return file
        self._place.mkdir(exist_ok=True)
        with file_lock(self._place / f".{file.name}.lock"):
            if not file.exists():
                part = file.with_name(f"{file.name}.tmp")
                with part.open("wb") as out:
                    for ids in self._encode(shard):
                        out.write(ids.tobytes())
                    out.flush()
                    os.fsync(out.fileno())
                part.rename(file)
        return file

    def _encode(self, shard: Path) -> Iterator[Ids]:
        with open_shard(shard) as parquet:
            for group in range(parquet.num_row_groups):
                texts = read_group(parquet, group)
                documents: Sequence[Ids] = self._tokenizer.encode_arrays(texts, self._threads)
                if self._row:
                    documents = pack(documents, self._row)
                if documents:
                    yield np.concatenate(documents).astype(self._dtype)

    def _prepare_ahead(self, number: int) -> None:
        number %= len(self._shards)
        busy = self._ahead is not None and self._ahead.is_alive()
        made = (self._place / f"{self._shards[number].stem}{self._suffix}").exists()
        if number in self._mapped or busy or made:
            return
        # a failure is met again, and raised, when the shard is needed
        self._ahead = threading.Thread(target=self._quietly, args=(number,), daemon=True)
        self._ahead.start()

    def _quietly(self, number: int) -> None:
        with suppress(DataError, OSError):
            self._tokenised(number)


def pack(documents: Sequence[Ids], row: int) -> list[Ids]:
    """Rows of `row` tokens, each beginning with a document's beginning, as pieces in their order.

    The longest document that fits is taken; when none fits, the shortest is cut to fill the row.
    What does not fill a last row is left out.
    """
    by_length = sorted(range(len(documents)), key=lambda number: (len(documents[number]), number))
    lengths = [len(documents[number]) for number in by_length]
    pieces: list[Ids] = []
    room, complete = row, 0
    while by_length:
        at = bisect.bisect_right(lengths, room) - 1
        number = by_length.pop(max(at, 0))
        lengths.pop(max(at, 0))
        piece = documents[number][:room]
        pieces.append(piece)
        room -= len(piece)
        if room == 0:
            room, complete = row, len(pieces)
    return pieces[:complete]
