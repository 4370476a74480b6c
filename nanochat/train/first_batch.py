"""The first micro-batch of a run as text, told once: what the model reads, and what the loss is taken of.

Rank 0 tells it before its first step, out of ids that lie on the CPU anyway: no step waits for it, no random
number is drawn. A token counts when it is a target of the loss; the first of a row never is one.
Not covered: padding; the micro-batches after the first, and those of other ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from nanochat.tokenizer import Tokenizer
from nanochat.tokens import Ids
from nanochat.train.loop import Trainer

MAX_ROWS = 4
MAX_TOKENS = 512  # of a row
MAX_PIECE = 64  # characters of a piece
MAX_BYTES = 96 << 10  # of all pieces: an event's line may have 256 KiB
MAX_TOGETHER = 8  # tokens that make a character together, or several that overlap


@dataclass(frozen=True)
class Row:
    """Tokens of a row, 1 for those that count, and what else there is to say of it."""

    ids: Sequence[int]
    counts: Sequence[int]
    about: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Text of one token, or of several that are no text on their own."""

    text: str
    ids: list[int]
    counts: int
    special: bool = False


class FirstBatch:
    """`tell` does it once, and not when this run goes on from a checkpoint of its own."""

    def __init__(self, trainer: Trainer, resumed: Path | None) -> None:
        told = resumed is not None and resumed == trainer.newest_own()
        self._trainer, self._wanted = trainer, trainer.world.is_master and not told

    def tell(self, rows: Iterable[Row], of: int) -> None:
        """`rows`: those of this rank's micro-batch, or its first ones; `of`: how many it has."""
        if self._wanted:
            self._wanted = False
            trainer = self._trainer
            told = described(trainer.tokenizer, islice(rows, MAX_ROWS))
            trainer.world.events.emit("first_batch", step=trainer.progress.step + 1, batch=of, rows=told)


def rows_of(stored: Iterable[Ids]) -> list[Row]:
    """Rows of a stream: each has its inputs and one target more; −(id + 1) is a token that does not count."""
    return [
        Row([max(id, -1 - id) for id in ids], [0, *(int(id >= 0) for id in ids[1:])])
        for ids in (row.tolist() for row in stored)
    ]


def described(tokenizer: Tokenizer, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as columns of their pieces, `MAX_TOKENS` of each and `MAX_BYTES` of all at most.

    length: tokens of the whole row; text, ids (of each piece), counts; special: places of special tokens.
    """
    room = MAX_BYTES
    told = []
    for row in rows:
        columns: dict[str, Any] = {"length": len(row.ids), "text": [], "ids": [], "counts": [], "special": []}
        for piece in pieces(tokenizer, row.ids[:MAX_TOKENS], row.counts[:MAX_TOKENS]):
            room -= len(piece.text.encode("unicode_escape")) + 16
            if room < 0:
                break
            if piece.special:
                columns["special"].append(len(columns["text"]))
            columns["text"].append(piece.text)
            columns["ids"].append(piece.ids)
            columns["counts"].append(piece.counts)
        told.append({**columns, **row.about})
    return told


def pieces(tokenizer: Tokenizer, ids: Iterable[int], counts: Iterable[int]) -> Iterator[Piece]:
    """Each token with its text. Tokens that end inside a character wait for the rest of it and become one
    piece, as long as all of them count or none does; bytes that are no UTF-8 are escaped: \\xe4.
    """
    names = {id: name for name, id in tokenizer.specials.items()}
    waiting: list[int] = []
    held, counted = b"", 0
    for id, counts_too in zip(ids, counts, strict=True):
        data = b"" if id in names else tokenizer.bytes_of(id)
        text = _text(held + data)
        if waiting and (id in names or counts_too != counted or text == "" or len(waiting) == MAX_TOGETHER):
            yield from _escaped(tokenizer, waiting, counted)
            waiting, held, text = [], b"", _text(data)
        counted = counts_too
        if id in names:
            yield Piece(names[id], [id], counted, True)
        elif text is None:
            waiting, held = [*waiting, id], held + data
        elif text == "":
            yield from _escaped(tokenizer, [id], counted)
        else:
            yield Piece(_short(text), [*waiting, id], counted)
            waiting, held = [], b""
    yield from _escaped(tokenizer, waiting, counted)


def _text(data: bytes) -> str | None:
    """The text of `data`; None when its last character goes on, empty when it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return None if error.reason == "unexpected end of data" else ""


def _escaped(tokenizer: Tokenizer, ids: Iterable[int], counted: int) -> Iterator[Piece]:
    for id in ids:
        yield Piece(_short(tokenizer.bytes_of(id).decode("utf-8", "backslashreplace")), [id], counted)


def _short(text: str) -> str:
    return text if len(text) <= MAX_PIECE else text[:MAX_PIECE] + "…"
