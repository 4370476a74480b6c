"""Text from a folder of the user's own: txt, md, jsonl (`text` field) and parquet (`text` column)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from nanochat.errors import DataError
from nanochat.sources.shards import read_texts

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
SEED = 42


def documents(folder: Path) -> list[str]:
    """Every document below `folder`, shuffled with a fixed seed. A txt or md file is one document.

    Raises DataError when there is none, or for a line of JSONL without text.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    found = [text for file in files for text in _read(file) if text.strip()]
    if not found:
        raise DataError(f"{folder} holds no text: put txt, md, jsonl or parquet files there")
    random.Random(SEED).shuffle(found)
    return found


def fingerprint(folder: Path) -> list[list[object]]:
    """Names, sizes and times of the files: changes when the text may have changed."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    return [[str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _read(file: Path) -> Iterator[str]:
    match file.suffix.lower():
        case ".parquet":
            yield from read_texts([file])
        case ".jsonl":
            yield from _read_jsonl(file)
        case _:
            yield file.read_text(encoding="utf-8", errors="replace")


def _read_jsonl(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise DataError(f'{file}, line {number}: expected a JSON object with a string under "text"')
            yield text
