"""Files that users uploaded: what they may be called, where they lie, and which of them a config names.

    files/conversations/support.jsonl    files/text/books.txt    files/preset/mine.py

These paths, below the base directory, are also how a config names them: `data=files/text/books.txt`, or
`data=files/text` for all texts together. What they must hold is nanochat/file_check.py's to say.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from nanochat.paths import TAG

ROOT = "files"
#: what a file of each kind may end in
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "conversations": (".jsonl",),
    "text": (".txt", ".md", ".jsonl", ".parquet"),
    "preset": (".py", ".json"),
}
LONGEST_NAME = 64
#: fields of a config that name text or conversations
FIELDS = ("data", "data_dir", "tasks")
#: what an entry of a mixture may have behind its name: see tasks/mixture.py
OPTIONS = re.compile(r"(?:\[\d*:\d*\])?(?:\*\d+)?$")


def place(base: Path, kind: str, name: str) -> Path:
    """Where the file lies. Raises ValueError for a name that is no plain one, KeyError for a kind."""
    return base / relative(kind, name)


def relative(kind: str, name: str) -> str:
    """The file's path below the base directory. Raises as `place`."""
    return f"{ROOT}/{kind}/{check_name(kind, name)}"


def check_name(kind: str, name: str) -> str:
    """`name` itself when a file of this kind may be called so. Raises ValueError, and KeyError for a kind."""
    suffixes = SUFFIXES[kind]
    if not TAG.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a file: use a-z, 0-9, dot, dash and underscore, {LONGEST_NAME} at most"
        )
    if not name.endswith(suffixes):
        raise ValueError(f"a file of {kind} ends in {' or '.join(suffixes)}, not {name!r}")
    return name


def namesakes(kind: str, name: str) -> list[str]:
    """Names of other files that users call the same: a preset is known by its name without the ending."""
    if kind != "preset":
        return []
    path = PurePosixPath(name)
    return [path.stem + suffix for suffix in SUFFIXES[kind] if suffix != path.suffix]


def plain_name(text: str) -> str:
    """The usable name nearest to a path or a name of the user's own; empty when nothing of it is usable.

    Small letters without accents, dashes for blanks, anything else left out; the last suffix stays.
    """
    name = unicodedata.normalize("NFKD", re.split(r"[/\\]", text)[-1]).lower()
    name = re.sub(r"\s+", "-", name.strip())
    stem, dot, suffix = re.sub(r"[^a-z0-9._-]", "", name).rpartition(".")
    stem = stem.lstrip("._-")
    if not dot or not stem:
        return ""
    return f"{stem[: LONGEST_NAME - 1 - len(suffix)]}.{suffix}"


def named(config: Mapping[str, Any], base: Path) -> dict[str, str]:
    """What below `files/` the values of a config name, relative to `base`, and the field that does.

    Directories count as well. Not covered: links that lead there.
    """
    found: dict[str, str] = {}
    base = base.absolute()
    for field in FIELDS:
        for entry in str(config.get(field) or "").split(","):
            path = os.path.normpath(base / OPTIONS.sub("", entry.strip()))
            if Path(path).is_relative_to(base / ROOT):
                found.setdefault(str(PurePosixPath(Path(path).relative_to(base))), field)
    return found


def needs(config: Mapping[str, Any], base: Path, path: str) -> bool:
    """Whether a config names the file `path` (relative to `base`), or a directory that it lies in."""
    return any(path == one or path.startswith(f"{one}/") for one in named(config, base))
