"""Lines of an events file as checked events. Whatever is no event becomes a warning, never an error."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from nanochat.events import KINDS

MAX_LINE_BYTES = 256 * 1024
MAX_KEY_CHARS = 128
MAX_STEP = 2**53
MAX_QUOTE = 200
_PLAIN = {float, int}


@dataclass(slots=True)
class TrainerEvent:
    """One line: `data` holds what is left beside t, kind, step and the metric values."""

    kind: str
    t: float
    step: int | None = None
    values: dict[str, float | None] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def whole_lines(data: bytes) -> tuple[list[bytes], int]:
    """Lines of `data` and how many bytes they take; an unfinished last line waits for its end.

    A piece without a newline that is longer than any event counts as one (broken) line.
    """
    end = data.rfind(b"\n") + 1
    if end == 0:
        return ([data], len(data)) if len(data) > MAX_LINE_BYTES else ([], 0)
    return data[:end].split(b"\n")[:-1], end


def parse(line: bytes) -> TrainerEvent | None:
    """The event of one line; None for an empty one."""
    if not line.strip():
        return None
    if len(line) > MAX_LINE_BYTES:
        return warning(f"an event line of {len(line)} bytes was dropped")
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError:
        return warning(f"a broken event line was dropped: {quote(line)}")
    if not isinstance(raw, dict) or raw.get("kind") not in KINDS:
        return warning(f"a line that is no event was dropped: {quote(line)}")
    event = TrainerEvent(kind=raw.pop("kind"), t=_number(raw.pop("t", None)) or time.time())
    step = raw.pop("step", None)
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < MAX_STEP:
        event.step = step
    values = raw.pop("values", None)
    if event.kind == "metric":
        if event.step is None or not isinstance(values, dict):
            return warning(f"a metric without step or values was dropped: {quote(line)}")
        event.values = _metrics(values)
    elif values is not None:
        raw["values"] = values
    event.data = _without_nul(raw)
    return event


def _metrics(values: dict[str, Any]) -> dict[str, float | None]:
    """The values by name, null for what is no finite number; names too long or with a NUL are dropped."""
    numbers = values.values()
    if (
        _PLAIN.issuperset(map(type, numbers))
        and math.isfinite(sum(numbers))
        and max(map(len, values), default=0) <= MAX_KEY_CHARS
        and "" not in values
        and "\0" not in "".join(values)
    ):
        return values  # the usual case, several times as fast
    return {k: _number(v) for k, v in values.items() if 0 < len(k) <= MAX_KEY_CHARS and "\0" not in k}


def warning(message: str) -> TrainerEvent:
    return TrainerEvent(kind="warning", t=time.time(), data={"message": message})


def quote(line: bytes) -> str:
    """The start of a line, readable."""
    text = line[:MAX_QUOTE].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return repr(text)


def numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping."""
    if not isinstance(values, dict):
        return {}
    return {str(k): n for k, v in values.items() if (n := _number(v)) is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _without_nul(value: Any) -> Any:
    """PostgreSQL stores no NUL in text."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
