"""What a worker notes on disk about the attempts it holds, for the worker that comes after it.

A note lies in `worker/<host id>/live/` from the claim until the server has everything of the attempt. One
that is still there when a worker starts tells which files to ship and under which fence (worker/salvage.py).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """One attempt. `fence`: as claimed."""

    attempt_id: str
    run_id: str
    number: int
    fence: int


def place(base_dir: Path, host: str) -> Path:
    """Where this host keeps its own files; base directories may be shared between hosts."""
    return base_dir / "worker" / host


def write(base_dir: Path, host: str, note: Note) -> None:
    """Durable before the trainer starts, so that a power cut leaves no trainer without a note."""
    folder = place(base_dir, host) / "live"
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{note.attempt_id}.tmp"
    with fresh.open("w") as file:
        json.dump(asdict(note), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / f"{note.attempt_id}.json")


def forget(base_dir: Path, host: str, attempt_id: str) -> None:
    """The server has everything, or wants nothing more of it."""
    (place(base_dir, host) / "live" / f"{attempt_id}.json").unlink(missing_ok=True)


def read(base_dir: Path, host: str, attempt_id: str) -> Note | None:
    """None: there is no note, or it cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        text = (place(base_dir, host) / "live" / f"{attempt_id}.json").read_text()
        return Note(**json.loads(text))
    return None


def read_all(base_dir: Path, host: str) -> list[Note]:
    """Every note of this host; those that cannot be read are removed."""
    found = []
    for file in sorted((place(base_dir, host) / "live").glob("*")):
        note = read(base_dir, host, file.stem) if file.suffix == ".json" else None
        if note is None:
            file.unlink(missing_ok=True)
        else:
            found.append(note)
    return found
