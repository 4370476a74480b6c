"""Where the output of a run can be read: `logs/train_{run}_{time}.log`, also from the working directory."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from pathlib import Path
from typing import IO, TextIO

from nanochat.paths import replace_link


class LogTee:
    """Copies stdout and stderr to a log file until it is closed.

    In the service the worker already keeps the output (`run.log`); then only the links are made.
    A log that cannot be written never stops a training.
    """

    def __init__(self, file: IO[str] | None) -> None:
        self.file = file
        self.stdout, self.stderr = sys.stdout, sys.stderr
        if file is not None:
            sys.stdout, sys.stderr = _Both(self.stdout, file), _Both(self.stderr, file)

    @classmethod
    def open(cls, base: Path, run: str, attempt_dir: Path | None) -> LogTee:
        """The log of `run`: a file below `base`, or in the service a link to the attempt's run.log."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", run)
        name = f"train_{stem}_{time.strftime('%Y%m%d-%H%M%S')}.log"
        path = base / "logs" / name
        file: IO[str] | None = None
        with contextlib.suppress(OSError):
            if attempt_dir is not None:
                replace_link(path, attempt_dir / "run.log")
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("a", encoding="utf-8", buffering=1)
        beside = Path("logs") / name
        if beside.absolute() != path:
            with contextlib.suppress(OSError):
                replace_link(beside, path if attempt_dir is None else attempt_dir / "run.log")
        return cls(file)

    def close(self) -> None:
        if self.file is None:
            return
        sys.stdout, sys.stderr = self.stdout, self.stderr
        self.file.close()
        self.file = None


class _Both:
    """A text stream that writes to two."""

    def __init__(self, screen: TextIO, file: IO[str]) -> None:
        self._screen, self._file = screen, file

    def write(self, text: str) -> int:
        if not self._file.closed:
            self._file.write(text)
        return self._screen.write(text)

    def flush(self) -> None:
        self._screen.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._screen, name)
