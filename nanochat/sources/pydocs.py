"""Text that is on every machine: docstrings of the installed packages and the standard library.

Sources are read, never imported. A docstring is a triple-quoted literal at the start of a file or on the
line after a colon; a scan finds it and `ast.literal_eval` decodes it, which is several times quicker than
parsing 250 MB into syntax trees and finds the same text.
Not covered: docstrings in single quotes, in compiled modules, or set at run time.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import pydoc_data.topics
import random
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

MIN_CHARS = 80  # shorter ones say "Return the name." in a thousand variations
MAX_CHARS = 100_000
MAX_FILE_BYTES = 2_000_000  # beyond that it is a generated table
SEED = 42
_OTHER_ENVIRONMENTS = {"site-packages", "dist-packages", "__pycache__"}


def documents(roots: Iterable[Path] | None = None) -> list[str]:
    """Every distinct docstring and help topic, in an order that depends on the installed files only."""
    seen: set[bytes] = set()
    found: list[str] = []
    for text in _texts(python_roots() if roots is None else list(roots)):
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            found.append(text)
    random.Random(SEED).shuffle(found)
    return found


def python_roots() -> list[Path]:
    """The standard library and the environment's site-packages."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(Path(paths[key]) for key in ("stdlib", "purelib", "platlib")))


def _texts(roots: list[Path]) -> Iterator[str]:
    for topic in sorted(pydoc_data.topics.topics):
        yield pydoc_data.topics.topics[topic].strip()
    for root in roots:
        for file in _sources(root):
            yield from docstrings(file)


def _sources(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names[:] = sorted(set(names) - _OTHER_ENVIRONMENTS)
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(directory, name)


def docstrings(file: Path) -> Iterator[str]:
    """The docstrings of one source file that are long enough. Unreadable files have none."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            return
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for literal in _literals(source):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's code
                text = inspect.cleandoc(ast.literal_eval(literal)).strip()
        except (SyntaxError, ValueError, MemoryError):
            continue
        if len(text) >= MIN_CHARS:
            yield text[:MAX_CHARS].encode("utf-8", "replace").decode()


def _literals(source: str) -> Iterator[str]:
    position = 0
    while True:
        starts = [start for quote in ('"""', "'''") if (start := source.find(quote, position)) >= 0]
        if not starts:
            return
        start = min(starts)
        end = _closing(source, start)
        if end < 0:
            return
        position = end + 3
        first = start - 1 if start and source[start - 1] in "rRuU" else start
        if position - start >= MIN_CHARS and _opens_a_body(source, first):
            yield source[first:position]


def _closing(source: str, start: int) -> int:
    """Where the literal that opens at `start` closes; -1: nowhere."""
    end = source.find(source[start : start + 3], start + 3)
    while end >= 0:
        slashes = end
        while source[slashes - 1] == "\\":
            slashes -= 1
        if (end - slashes) % 2 == 0:
            return end
        end = source.find(source[start : start + 3], end + 1)
    return -1


def _opens_a_body(source: str, start: int) -> bool:
    """Whether only blanks and comments lie between `start` and a line's last colon, or the file's start."""
    at = start
    while True:
        line_start = source.rfind("\n", 0, at) + 1
        code = source[line_start:at].partition("#")[0].strip()
        if code:
            return at != start and code.endswith(":")
        if line_start == 0:
            return True
        at = line_start - 1
