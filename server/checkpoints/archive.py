"""A checkpoint's files as an uncompressed tar archive, from any byte on, without building it first.

Headers hold nothing but names and sizes, so that two downloads of the same files are the same bytes and a
client can go on where it stopped. Not covered: files that change meanwhile; those of a checkpoint do not.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import Response, StreamingResponse

READ_BYTES = 1024 * 1024
END = b"\0" * (2 * tarfile.BLOCKSIZE)
FROM_ON = re.compile(r"bytes=(\d{1,18})-")
_TAR = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it", "content": _TAR},
    206: {"description": "From the byte on that `Range` names", "content": _TAR},
    416: {"description": "It has no such byte; `Content-Range` says how many it has"},
}
Wanted = Annotated[str | None, Header(alias="range", max_length=64)]
Condition = Annotated[str | None, Header(alias="if-range", max_length=128)]


@dataclass(frozen=True)
class _Member:
    header: bytes
    file: Path
    size: int

    @property
    def padding(self) -> int:
        return -self.size % tarfile.BLOCKSIZE


class Archive:
    """`name`: the directory in the archive. Regular files of `directory` only, links left out."""

    def __init__(self, directory: Path, name: str) -> None:
        self._members = [_member(file, name) for file in sorted(directory.iterdir()) if _is_regular(file)]
        self.size = sum(len(one.header) + one.size + one.padding for one in self._members) + len(END)
        """Bytes."""

    def content(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` on."""
        at = 0
        for one in self._members:
            begin = at + len(one.header)
            end = begin + one.size
            if start < begin:
                yield one.header[max(0, start - at) :]
            if start < end:
                yield from _read(one.file, max(0, start - begin), one.size)
            at = end + one.padding
            if start < at:
                yield b"\0" * min(one.padding, at - start)
        yield END[max(0, start - at) :]


def _is_regular(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _member(file: Path, name: str) -> _Member:
    info = tarfile.TarInfo(f"{name}/{file.name}")
    info.size = file.stat().st_size
    return _Member(info.tobuf(tarfile.PAX_FORMAT), file, info.size)


def _read(file: Path, start: int, size: int) -> Iterator[bytes]:
    """Bytes `start` to `size`; of a file that has become shorter, what there is."""
    with file.open("rb") as source:
        source.seek(start)
        left = size - start
        while left and (data := source.read(min(READ_BYTES, left))):
            left -= len(data)
            yield data


def first_byte(wanted: str | None, condition: str | None, etag: str) -> int | None:
    """Where a `Range: bytes=N-` begins; None for no range, for other kinds, and for another version's."""
    found = FROM_ON.fullmatch((wanted or "").strip())
    if found is None or (condition is not None and condition.strip() != etag):
        return None
    return int(found.group(1))


def answer(directory: Path, name: str, version: str, wanted: str | None, condition: str | None) -> Response:
    """The files of `directory` as `<name>.tar`, or what is left of it from where the client stopped.

    `version`: changes when the files do; `wanted` and `condition` are the headers Range and If-Range.
    """
    archive, etag = Archive(directory, name), f'"{version}"'
    start = first_byte(wanted, condition, etag)
    headers = {
        "content-disposition": f'attachment; filename="{name}.tar"',
        "accept-ranges": "bytes",
        "etag": etag,
        "content-length": str(archive.size - (start or 0)),
    }
    if start is not None:
        if start >= archive.size:
            return Response(status_code=416, headers={"content-range": f"bytes */{archive.size}"})
        headers["content-range"] = f"bytes {start}-{archive.size - 1}/{archive.size}"
    return StreamingResponse(
        archive.content(start or 0),
        status_code=200 if start is None else 206,
        media_type="application/x-tar",
        headers=headers,
    )
