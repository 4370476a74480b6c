"""What has come of an upload, on the disk: `files/.parts/<id>` below the base directory until it is whole.

One process writes or checks it at a time: it holds a lock on the file, which dies with its holder. Not
covered: network file systems without locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nanochat import files

PARTS = ".parts"
#: content of a deleted file, until it is gone
GONE = ".gone"


def place(base: Path, file_id: str) -> Path:
    return base / files.ROOT / PARTS / file_id


class Part:
    """An open part with its lock; see `hold`. Its calls block."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._descriptor).st_size

    def cut(self, size: int) -> None:
        """What lies behind `size` bytes was never acknowledged: it goes."""
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        """Raises OSError when the disk is full."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        """Return once the bytes outlive a power cut."""
        os.fsync(self._descriptor)

    def become(self, final: Path) -> None:
        """The whole file, at its place for good."""
        final.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(final)
        for directory in (final.parent, self.path.parent):
            sync_directory(directory)


@contextlib.contextmanager
def hold(base: Path, file_id: str) -> Iterator[Part | None]:
    """The upload's part, made when there is none; None while somebody else holds it."""
    path = place(base, file_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield Part(path, descriptor) if _locked(path, descriptor) else None
    finally:
        os.close(descriptor)


def _locked(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # it may have been deleted, or have become whole, between the opening and the lock
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def put_away(base: Path, file_id: str, final: Path) -> None:
    """Take a whole file from its place, in no time; `drop` frees its room. None there is no error."""
    gone = place(base, f"{file_id}{GONE}")
    gone.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        final.replace(gone)


def drop(base: Path, file_id: str) -> None:
    """Free what an upload or a file that was put away takes. Nothing there is no error."""
    for path in (place(base, file_id), place(base, f"{file_id}{GONE}")):
        path.unlink(missing_ok=True)


def lost(base: Path, known: set[str], older_than: float) -> list[Path]:
    """Parts of uploads that nobody knows, untouched since `older_than` (unix seconds)."""
    folder = base / files.ROOT / PARTS
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if path.name not in known and path.lstat().st_mtime < older_than:
                found.append(path)
    return found


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
