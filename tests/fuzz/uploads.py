"""An upload of each kind: counted, or refused with its name; and what is counted is what training then reads.

Text also as it comes from a folder of the user's own, unchecked: documents that can be stored, or DataError.
Not covered: parquet, whose reader is C++ of others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nanochat import file_check
from nanochat.errors import DataError
from nanochat.sources.folder import documents
from nanochat.tasks.conversations import ConversationFile
from tests.fuzz import conversations, presets

MAX_BYTES = 8192
IS_JSON = True
WORDS = ('{"text": "', '"}', "text", "\n\n", "\r", "\ufeff", "# ", "depth = 4", *conversations.WORDS)
UPLOADS = (
    ("conversations", "a.jsonl"),
    ("text", "a.jsonl"),
    ("text", "a.txt"),
    ("preset", "a.py"),
    ("preset", "a.json"),
)


def seeds() -> Iterator[bytes]:
    """Conversations, presets, texts with and without blank lines."""
    yield from list(conversations.seeds())[:4]
    yield from list(presets.seeds())[:2]
    yield b'{"text": "one"}\n\n{"text": "two \xc3\xbc", "id": 2}\n'
    yield "\ufeff# Title\n\n".encode() + (b"word " * 100 + b"\n\n") * 6
    yield b"caf\xe9 is not UTF-8\n"


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="nanochat-fuzz-"))


def one(data: bytes) -> None:
    for kind, name in UPLOADS:
        file = folder() / name
        file.write_bytes(data)
        counted = _checked(kind, name, file)
        if kind == "text":
            _documents(file, counted)
        elif kind == "conversations" and counted is not None:
            assert len(ConversationFile("train", folder(), str(file))) == counted
        file.unlink()


def _checked(kind: str, name: str, file: Path) -> int | None:
    try:
        counted = file_check.check(kind, name, file)
    except DataError as error:
        assert str(error).startswith(name), error
        str(error).encode()
        return None
    assert (counted is None) == (kind == "preset") and counted != 0
    return counted


def _documents(file: Path, counted: int | None) -> None:
    try:
        found = documents(file)
    except DataError as error:
        assert str(file) in str(error) and counted is None
        return
    for text in found:
        text.encode()
    assert counted is None or len(found) == counted
