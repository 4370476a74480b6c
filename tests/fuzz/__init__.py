"""Coverage-guided fuzzing of what reads bytes that others wrote, and what it found as permanent cases.

    python -m tests.fuzz                       # every target for ten minutes
    python -m tests.fuzz events --minutes 60   # one of them, longer
    python -m tests.fuzz events --case FILE    # what a finding does, without atheris

A target is a module of this package: `one(data)` raises when a promise is broken, `seeds()` are real inputs,
WORDS is what its inputs are made of, MAX_BYTES how long they get, IS_JSON whether their lines are mutated as
JSON. `cases/<target>/` holds the smallest inputs that once broke a promise; test_cases.py runs them and the
seeds in every test run, and does not need atheris.
Not covered: inputs larger than MAX_BYTES (bounds on size have tests of their own), races, other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

HERE = Path(__file__).resolve().parent
CASES = HERE / "cases"
TARGETS = {
    "presets": "preset files: parsed, never executed; what every stage makes of them",
    "overrides": "overrides of POST /runs: refused with a pointer, or a config that can be stored",
    "events": "events.jsonl as workers ship it: checked events that every database holds",
    "ingest": "the same, stored in SQLite and read back through the API's views",
    "rendering": "conversations as tokens: the mask, special tokens, lengths",
    "conversations": "a user's JSONL of conversations: refused with its line, or rendered",
    "uploads": "uploaded conversations, texts and presets, and texts of a folder",
    "calculator": "what a model gives its calculator",
    "cursors": "cursors of lists and Range headers",
}


class Target(NamedTuple):
    """What a module of this package offers to the runner."""

    one: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    words: tuple[str, ...]
    max_bytes: int
    is_json: bool


def load(name: str) -> Target:
    """The target of that name; what it tests is imported now."""
    module = cast(Any, import_module(f"tests.fuzz.{name}"))
    return Target(module.one, module.seeds, module.WORDS, module.MAX_BYTES, module.IS_JSON)


def cases(name: str) -> list[Path]:
    """The inputs that once broke a promise."""
    return sorted((CASES / name).glob("*"))
