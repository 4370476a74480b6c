"""A lock between processes of one host that dies with its holder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path`; yields whether somebody else held it when we came.

    The kernel drops the lock when its holder dies, so nothing is ever left locked.
    Not covered: network file systems without locking; hosts that share nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield waited
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
