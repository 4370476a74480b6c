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
MAX_TIME = 253_402_300_800.0  # unix seconds: the year 10000, which no calendar of ours has
MAX_DEPTH = 64  # what is nested deeper ends in a RecursionError somewhere on its way to a reader
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


def events_of(data: bytes) -> tuple[list[TrainerEvent], int]:
    """The events of the whole lines in `data`, and how many bytes those take.

    Lines in a row that are no events make one warning: a megabyte of rubbish is not half a million rows.
    """
    lines, size = whole_lines(data)
    events: list[TrainerEvent] = []
    more = -1  # lines in a row, after a dropped one, that were dropped too
    for line in lines:
        found = _checked(line)
        if isinstance(found, str):
            more += 1
            if more == 0:
                events.append(warning(found))
        elif found is not None:
            _say_more(events, more)
            events.append(found)
            more = -1
    _say_more(events, more)
    return events, size


def _say_more(events: list[TrainerEvent], more: int) -> None:
    if more > 0:
        events[-1].data["message"] += f"; and {more} more after it"


def parse(line: bytes) -> TrainerEvent | None:
    """The event of one line; None for an empty one."""
    found = _checked(line)
    return warning(found) if isinstance(found, str) else found


def _checked(line: bytes) -> TrainerEvent | str | None:
    """The event of one line, or why it is none."""
    if not line.strip():
        return None
    if len(line) > MAX_LINE_BYTES:
        return f"an event line of {len(line)} bytes was dropped"
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError:
        return f"a broken event line was dropped: {quote(line)}"
    if not isinstance(raw, dict) or raw.get("kind") not in KINDS:
        return f"a line that is no event was dropped: {quote(line)}"
    event = TrainerEvent(kind=raw.pop("kind"), t=_time(raw.pop("t", None)))
    step = raw.pop("step", None)
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < MAX_STEP:
        event.step = step
    values = raw.pop("values", None)
    if event.kind == "metric":
        if event.step is None or not isinstance(values, dict):
            return f"a metric without step or values was dropped: {quote(line)}"
        event.values = _metrics(values)
    elif values is not None:
        raw["values"] = values
    try:
        event.data = _without_nul(raw)
    except _TooDeep:
        return f"an event nested deeper than {MAX_DEPTH} levels was dropped: {quote(line)}"
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


def whole(value: Any, below: int = 2**63) -> int | None:
    """`value` when it is a whole number from 0 that a column holds; true is none."""
    return value if type(value) is int and 0 <= value < below else None


def _time(value: Any) -> float:
    """Unix seconds; now for what is no time."""
    told = _number(value)
    return told if told is not None and 0 < told < MAX_TIME else time.time()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


class _TooDeep(Exception):
    pass


def _without_nul(value: Any, depth: int = 0) -> Any:
    """PostgreSQL stores no NUL in text. Raises _TooDeep."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not isinstance(value, dict | list):
        return value
    if depth == MAX_DEPTH:
        raise _TooDeep
    if isinstance(value, list):
        return [_without_nul(item, depth + 1) for item in value]
    return {_without_nul(key): _without_nul(item, depth + 1) for key, item in value.items()}
