"""What several targets promise: text and JSON that every database, stream and browser can take."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def storable_text(text: str) -> None:
    """UTF-8 without NUL, which PostgreSQL has no place for."""
    text.encode()
    assert "\0" not in text, f"a NUL in {text[:50]!r}"


def storable(value: Any, max_depth: int = 64) -> None:
    """Standard JSON: finite numbers, whole text, not nested without end; whole numbers of 64 bits."""
    assert max_depth >= 0, "nested too deeply"
    match value:
        case str():
            storable_text(value)
        case None | bool():
            pass
        case int():
            assert -(2**63) <= value < 2**64, f"{value} has more than 64 bits"
        case float():
            assert math.isfinite(value), f"{value} in JSON"
        case list():
            for item in value:
                storable(item, max_depth - 1)
        case dict():
            for key, item in value.items():
                assert isinstance(key, str)
                storable_text(key)
                storable(item, max_depth - 1)
        case _:
            raise AssertionError(f"{type(value).__name__} in JSON")


def standard(text: str | bytes) -> Any:
    """The value of a JSON text without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {text[:200]!r}")

    return json.loads(text, parse_constant=refuse)


class _Watch:
    """What this thread asks of the interpreter and the system; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.thread is not None and threading.get_ident() == self.thread:
            self.seen.append((event, repr(arguments)[:100]))


_watch: list[_Watch] = []


@contextmanager
def nothing_happens(*allowed: str) -> Iterator[None]:
    """No import, no file, no process, no code object run while this lasts, but the audit events `allowed`."""
    if not _watch:
        _watch.append(_Watch())
    (watch,) = _watch
    watch.seen.clear()
    watch.thread = threading.get_ident()
    try:
        yield
    finally:
        watch.thread = None
    happened = [event for event in watch.seen if event[0] not in allowed]
    assert not happened, f"reading it did {happened}"
