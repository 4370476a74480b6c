"""A file of conversations that a user hands in: DataError that names file and line, or all of it renders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nanochat.errors import DataError
from nanochat.tasks.conversations import ConversationFile
from nanochat.tasks.datasets import JsonLines
from tests.fuzz import rendering

MAX_BYTES = 8192
IS_JSON = True
WORDS = (*rendering.WORDS, "\n", "\r", "\ufeff", '{"messages": [', "NaN", "1e999")


def seeds() -> Iterator[bytes]:
    """Dialogues of tasks as lines of both forms, blank lines, other encodings, lines that are none."""
    lines = [*rendering.seeds()]
    yield b"\n".join(lines[:4]) + b"\n\n"
    for line in lines:
        messages = json.loads(line)
        messages = messages["messages"] if isinstance(messages, dict) else messages
        yield json.dumps({"messages": messages, "source": "x"}, ensure_ascii=False).encode() + b"\n" + line
    yield b"\xef\xbb\xbf" + lines[0] + b"\r\n \t\n" + lines[1]
    yield lines[0].decode().encode("utf-16")
    yield b'\n\n{"messages": []}\n[1]\n{"a'


@cache
def file() -> Path:
    return Path(tempfile.mkdtemp(prefix="nanochat-fuzz-")) / "mine.jsonl"


def one(data: bytes) -> None:
    file().write_bytes(data)
    lines = JsonLines(file())
    assert len(lines) == sum(1 for line in data.split(b"\n") if line.strip())
    try:
        found = ConversationFile("train", file().parent, str(file()))
    except DataError as error:
        assert str(file()) in str(error)
        assert "line " in str(error) or not len(lines)
        str(error).encode()
        return
    assert len(found) == len(lines) > 0
    for example in found:
        rendering.check(list(example.messages), 100, renders=True)
