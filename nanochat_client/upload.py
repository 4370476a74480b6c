"""Uploads that go on where they stopped: after a broken connection, after a restart, in another program.

A file is announced with its size and sha256; of one that was announced before, the server says how much it
has. Then it is sent in parts, each of which is on the server's disk when it is answered. Not covered: a file
that changes while it is sent (the server finds out at the end).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nanochat import files as names
from nanochat_client import types
from nanochat_client.download import PAUSE_S, TRIES, Progress
from nanochat_client.errors import ApiError, Conflict, ConnectionFailed, Invalid, NanochatError, ServerError
from nanochat_client.operations import files
from nanochat_client.operations.core import Operation

PART_BYTES = 4 * 1024 * 1024
CHECK_EVERY_S = 0.5
#: a proxy's words for a server that is restarting
AWAY = (502, 503, 504)
#: the server has more or less than we thought, or somebody else was sending
ASK_AGAIN = ("wrong_offset", "overtaken", "busy", "invalid_state")


class Sending:
    """A file on its way: `next` is what to send, `took` and `failed` are what came of it.

    `done`: the file, once it is ready. `pause_s`: how long to wait before what is next.
    """

    def __init__(self, path: Path, kind: str | None, name: str | None, progress: Progress | None) -> None:
        self.path, self._progress = path, progress
        self.kind = kind or guess_kind(path)
        self.name = name or names.plain_name(path.name)
        if not self.name:
            raise Invalid(f"{path.name}: give `name`, of a-z, 0-9, dot, dash and underscore", code="invalid")
        self.size = path.stat().st_size
        if not self.size:
            raise Invalid(f"{path} is empty", code="invalid")
        self.done: types.File | None = None
        self.pause_s = 0.0
        self._sha256 = ""
        self._file: types.File | None = None
        self._unsure = False
        """The server may have other bytes than its last answer said."""
        self._fruitless = 0
        self._best = -1

    def measure(self) -> None:
        """Read the whole file once, for its digest."""
        with self.path.open("rb") as source:
            self._sha256 = hashlib.file_digest(source, "sha256").hexdigest()

    def next(self) -> Operation[types.File]:
        """Raises NanochatError when the file has become shorter."""
        here = self._file
        if here is None:
            return files.create_file(self.name, kind=self.kind, size=self.size, sha256=self._sha256)
        if self._unsure or here.state is not types.FileState.UPLOADING:
            return files.get_file(here.id)
        with self.path.open("rb") as source:
            source.seek(here.offset)
            data = source.read(min(PART_BYTES, self.size - here.offset))
        if not data:
            raise NanochatError(f"{self.path} has changed while it was sent", code="changed")
        return files.append(here.id, data, here.offset)

    def took(self, file: types.File) -> None:
        """An answer. Raises Invalid when the file was rejected."""
        self._file, self._unsure, self.pause_s = file, False, 0.0
        if file.offset > self._best:
            self._best, self._fruitless = file.offset, 0
            if self._progress is not None:
                self._progress(file.offset, self.size)
        if file.state is types.FileState.CHECKING:
            self.pause_s = CHECK_EVERY_S
        elif file.state is types.FileState.READY:
            self.done = file
        elif file.state is types.FileState.REJECTED:
            raise Invalid(str(file.message), status=422, code="rejected")

    def failed(self, error: ConnectionFailed | ApiError) -> None:
        """No answer, or a refusal. Raises it when there is nothing more to try."""
        passing = (
            isinstance(error, ConnectionFailed)
            or (isinstance(error, ServerError) and error.status in AWAY)
            or (isinstance(error, Conflict) and error.code in ASK_AGAIN)
        )
        self._fruitless += 1
        if not passing or self._file is None or self._fruitless > TRIES:
            raise error
        self._unsure = True
        self.pause_s = PAUSE_S * 2 ** (self._fruitless - 1)


def guess_kind(path: Path) -> str:
    """What a file is by its ending; JSON lines by the first of them."""
    if path.suffix.lower() in names.SUFFIXES["preset"]:
        return "preset"
    if path.suffix.lower() != ".jsonl":
        return "text"
    with path.open("rb") as lines:
        first = next((line for line in iter(lambda: lines.readline(1 << 20), b"") if line.strip()), b"")
    try:
        found: Any = json.loads(first)
    except (ValueError, RecursionError):
        return "conversations"  # the server names what is wrong with it
    has_text = isinstance(found, dict) and "text" in found and "messages" not in found
    return "text" if has_text else "conversations"
