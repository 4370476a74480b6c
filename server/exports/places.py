"""Where exports lie: one directory for each checkpoint, format and type, below `exports/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nanochat.interop.formats import DTYPES, FORMATS, PARTIAL
from nanochat.paths import check_tag

EXPORTS = "exports"
#: the names under which a checkpoint's exports are known: hf-float32 …
NAMES = {f"{form}-{dtype}": (form, dtype) for form in FORMATS for dtype in DTYPES}


@dataclass(frozen=True)
class Place:
    """One export of a checkpoint, whether there is one or not. `folder`: where all of them lie."""

    folder: Path
    checkpoint: str
    name: str

    @property
    def format(self) -> str:
        return NAMES[self.name][0]

    @property
    def dtype(self) -> str:
        return NAMES[self.name][1]

    @property
    def key(self) -> str:
        return f"{self.checkpoint}-{self.name}"

    @property
    def directory(self) -> Path:
        """The files; there when they are whole."""
        return self.folder / self.key

    @property
    def note(self) -> Path:
        """Says why there are none; locked by whoever makes them."""
        return self.folder / f".{self.key}.note"

    def clear(self) -> None:
        """Remove what a dead process has left half-written."""
        for left in self.folder.glob(f".{self.key}.*{PARTIAL}"):
            shutil.rmtree(left, ignore_errors=True)


def place_of(base: Path, checkpoint: str, name: str) -> Place:
    """Raises ValueError for an id that is no plain name, KeyError for a name that no export has."""
    NAMES[name]
    return Place(base / EXPORTS, check_tag(checkpoint), name)


def places_of(base: Path, checkpoint: str) -> list[Place]:
    """Every export that the checkpoint may have."""
    return [place_of(base, checkpoint, name) for name in NAMES]


def known_places(base: Path) -> Iterator[Place]:
    """Every export that was ever asked for here."""
    for note in (base / EXPORTS).glob(".*.note"):
        checkpoint, _, name = note.name[1:].removesuffix(".note").partition("-")
        if name in NAMES:
            yield Place(note.parent, checkpoint, name)


def remove(base: Path, checkpoints: Iterable[str]) -> None:
    """Delete the exports of deleted checkpoints."""
    for checkpoint in checkpoints:
        for place in places_of(base, checkpoint):
            shutil.rmtree(place.directory, ignore_errors=True)
            place.clear()
            place.note.unlink(missing_ok=True)
