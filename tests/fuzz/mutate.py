"""Mutations of lines of JSON that mostly leave them JSON: other bytes seldom get past the parser."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e308,
    -1e308, 5e-324, "", " ", "\0", "\ud800", "\ud83d\ude00", "日本", "x" * 200, "<|bos|>",
    [], {}, [[]], [{}], {"": None},
)  # fmt: skip


def json_mutator(
    words: tuple[str, ...], mutate_bytes: Callable[[bytes, int], bytes]
) -> Callable[[bytes, int, int], bytes]:
    """A custom mutator for atheris. `mutate_bytes`: libFuzzer's own, which gets a third of the work."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.35:
            return mutate_bytes(data, max_size)
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        try:
            value = json.loads(lines[at])
            if rng.random() < 0.15:
                other = rng.choice(lines)
                lines.insert(at, other)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                value = _changed(value, rng, words)
            lines[at] = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            return mutate_bytes(data, max_size)
        made = b"\n".join(lines)
        return made if len(made) <= max_size else mutate_bytes(data, max_size)

    return mutate


def _changed(value: Any, rng: random.Random, words: tuple[str, ...]) -> Any:
    """`value` with one place in it changed: replaced, doubled, removed, renamed, wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice([*value])
        match rng.randrange(8):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return {**value, rng.choice(words): _odd(rng, words)}
            case 2:
                return {(rng.choice(words) if name == key else name): item for name, item in value.items()}
            case 3:
                return {**value, key: value[rng.choice([*value])]}
        return {**value, key: _changed(value[key], rng, words)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        match rng.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value[:at], value[at], *value[at:]]
            case 2:
                return [*value[:at], _odd(rng, words), *value[at:]]
        return [*value[:at], _changed(value[at], rng, words), *value[at + 1 :]]
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randrange(len(value) + 1)
        return value[:at] + str(_odd(rng, words)) + value[at + rng.randrange(3) :]
    if rng.random() < 0.1:
        return _wrapped(value, rng)
    return _odd(rng, words)


def _wrapped(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice((1, 3, 70, 300))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _odd(rng: random.Random, words: tuple[str, ...]) -> Any:
    return rng.choice(words) if rng.random() < 0.4 else rng.choice(ODD)
