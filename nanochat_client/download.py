"""Downloads that go on where they stopped: after a broken connection, or in another program later.

What has come lies in `<file>.<tag>.part` beside the file, and becomes the file when all of it is there.
The server says with every part which version it is of; of another version nothing is kept. Not covered: two
programs that download to the same file at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from nanochat_client.errors import ConnectionFailed, ServerError

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of the whole."""
#: tries in a row that brought nothing
TRIES = 5
PAUSE_S = 0.5


class Part:
    """The part of a file that is here. `tag`: the server's name for the version, without quotes."""

    def __init__(self, file: Path, tag: str, progress: Progress | None) -> None:
        self.file, self._tag, self._progress = file, tag, progress
        self._part = file.with_name(f"{file.name}.{tag[:16]}.part")
        self._at = 0
        self._total: int | None = None
        self._fruitless = 0
        self._before = -1

    @property
    def here(self) -> int:
        """Bytes."""
        return self._part.stat().st_size if self._part.exists() else 0

    @property
    def headers(self) -> dict[str, str]:
        """What to ask for next."""
        plain = {"accept-encoding": "identity"}
        if not self.here:
            return plain
        return {**plain, "range": f"bytes={self.here}-", "if-range": f'"{self._tag}"'}

    def opened(self, status: int, headers: Mapping[str, str]) -> IO[bytes]:
        """Where the content of an answer goes. Raises ServerError for one of another length or version."""
        if headers.get("etag", "").strip('"') != self._tag:
            raise ServerError("the file has changed on the server; download it again", code="changed")
        if status == 206:
            given, _, total = headers.get("content-range", "").removeprefix("bytes ").partition("/")
            if not given.startswith(f"{self.here}-") or not total.isdecimal():
                raise ServerError("the server sent another part than it was asked for", code="bad_range")
            self._at, self._total = self.here, int(total)
            return self._part.open("ab")
        self._at, self._total = 0, int(headers["content-length"])
        return self._part.open("wb")

    def refused(self, headers: Mapping[str, str]) -> None:
        """The server has nothing from here on: all is here, or more than there is."""
        total = headers.get("content-range", "").removeprefix("bytes */")
        self._total = int(total) if total.isdecimal() else 0

    def came(self, size: int) -> None:
        """So many bytes more are here."""
        self._at += size
        if self._progress and self._total is not None:
            self._progress(self._at, self._total)

    def is_whole(self) -> bool:
        """All of it is here; then the file is in its place."""
        if self._total is None or self.here < self._total:
            return False
        if self.here > self._total:
            self._part.unlink()
            raise ServerError("more has come than the server has; download it again", code="bad_range")
        self._part.replace(self.file)
        return True

    def broke(self, error: ConnectionFailed) -> None:
        """The connection is gone. Raises `error` when the last tries brought nothing."""
        self._fruitless = self._fruitless + 1 if self.here == self._before else 1
        self._before = self.here
        if self._fruitless >= TRIES:
            raise error
