"""Text of the user's own, a folder or one file: txt, md, jsonl (`text` field), parquet (`text` column)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nanochat.errors import DataError
from nanochat.files import SUFFIXES as FILES

SUFFIXES = FILES["text"]
SEED = 42
#: a text that is a corpus by itself becomes documents of at least so many characters, and hardly more
PIECE_CHARS = 2000
LONGEST_PIECE_CHARS = 8000


def documents(place: Path) -> list[str]:
    """Every document below `place`, shuffled with a fixed seed. A txt or md file is one document; one that
    is `place` itself is cut at its blank lines.

    Raises DataError when there is none, or for a line of JSONL without text.
    """
    whole = place.is_file()
    found = [text for file in _files(place) for text in _read(file, whole) if text.strip()]
    if not found:
        raise DataError(f"{place} holds no text: put txt, md, jsonl or parquet files there")
    random.Random(SEED).shuffle(found)
    return found


def fingerprint(place: Path) -> list[list[object]]:
    """Names, sizes and times of the files: changes when the text may have changed."""
    files = _files(place)
    return [[str(file.relative_to(place)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def pieces(lines: IO[str]) -> Iterator[str]:
    """A long text as documents: cut at a blank line, where there is none at the end of a line, and a line
    that is longer by itself anywhere. Nothing is left out."""
    found: list[str] = []
    size = 0
    while line := lines.readline(LONGEST_PIECE_CHARS):
        found.append(line)
        size += len(line)
        if size >= LONGEST_PIECE_CHARS or (size >= PIECE_CHARS and not line.strip()):
            yield "".join(found)
            found, size = [], 0
    if found:
        yield "".join(found)


def text_of(line: str | bytes, where: str) -> str:
    """The text of a line of JSONL. Raises DataError."""
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise DataError(f'{where}: expected a JSON object with a string under "text"')
    return encodable(text, where)


def encodable(text: str, where: str) -> str:
    """The text itself. Raises DataError when it has no bytes, which JSON's escapes make possible."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: half of a character (a lone surrogate): no tokenizer takes it") from None
    return text


def _files(place: Path) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [file for file in found if file.suffix.lower() in SUFFIXES and file.is_file()]


def _read(file: Path, whole: bool) -> Iterator[str]:
    match file.suffix.lower():
        case ".parquet":
            from nanochat.sources.shards import read_texts  # pyarrow takes a while to load

            yield from read_texts([file])
        case ".jsonl":
            yield from _read_jsonl(file)
        case _ if whole:
            with file.open(encoding="utf-8-sig", errors="replace") as lines:
                yield from pieces(lines)
        case _:
            yield file.read_text(encoding="utf-8-sig", errors="replace")


def _read_jsonl(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield text_of(line, f"{file}, line {number}")
