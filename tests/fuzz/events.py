"""`events.jsonl` as workers ship it: no error, bounded, and events that every database and browser takes."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson

from nanochat.events import KINDS, EventLog
from server.telemetry.lines import (
    MAX_DEPTH,
    MAX_KEY_CHARS,
    MAX_LINE_BYTES,
    MAX_STEP,
    MAX_TIME,
    TrainerEvent,
    events_of,
)
from tests.fuzz.promises import standard, storable, storable_text

MAX_BYTES = 8192
IS_JSON = True
WORDS = (
    *KINDS, "kind", "t", "step", "values", "train/loss", "val/bpb", "train/tokens", "path", "sha256", "bytes",
    "removed", "metrics", "model", "origin", "name", "counts", "details", "checkpoint", "intervals", "steps",
    "resume", "message", "status", "peak_bytes", "prompt", "text", "\\u0000", "\\ud800", "1e308", "-0.0",
    "9223372036854775808", "9007199254740992", "true", "null",
)  # fmt: skip


def seeds() -> Iterator[bytes]:
    """What a real training wrote, whole and line by line, and every kind of event as EventLog writes it."""
    for file in sorted(Path(__file__).with_name("seeds").glob("*.events.jsonl")):
        data = file.read_bytes()
        yield data
        yield from data.splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as place:
        log = EventLog(Path(place) / "events.jsonl")
        log.emit("phase", phase="train", step=0, steps=50)
        log.metric(1, train__loss=3.5, train__tokens=4096, train__mfu=math.nan)
        log.emit("phase", phase="resume", step=1)
        log.emit("sample", step=1, prompt="The", text=" capital\x1b[31m \0 日本")
        log.emit("checkpoint", step=1, path="base_checkpoints/d2/step_000001", removed=True)
        scores = {
            "values": {"sums": 0.5},
            "counts": {"sums": 64},
            "details": {"intervals": {"sums": [0.4, 0.6]}},
        }
        log.emit("eval", step=1, name="chat_eval", **scores)
        log.emit("warning", message="slow")
        log.emit("end", step=50, status="succeeded", peak_bytes=2**33)
        log.close()
        yield (Path(place) / "events.jsonl").read_bytes()
    yield b'not json\n[1, 2]\n{"kind": "magic"}\n\xff\xfe\x00\n\n'
    yield b'{"kind": "metric", "step": 1, "values": {"a": NaN}}\n'
    yield b'{"kind": "end"}\n{"kind": "metric", "step": 2, "values": {"a": 1, "b": null, "": 2}}\n{"half": '


def one(data: bytes) -> None:
    events, size = events_of(data)
    assert 0 <= size <= len(data)
    rest = data[size:]
    assert b"\n" not in rest and len(rest) <= MAX_LINE_BYTES, "an unfinished line waits without bound"
    for event in events:
        check(event, len(data))
    kinds = [event.kind for event in events]
    assert len(events) <= data.count(b"\n") + 1
    again = [event.kind for line in data[:size].splitlines(keepends=True) for event in events_of(line)[0]]
    if b"\r" not in data:  # where splitlines and lines of JSON part
        assert [k for k in kinds if k != "warning"] == [k for k in again if k != "warning"]


def check(event: TrainerEvent, shipped: int) -> None:
    """One event: storable, and not larger than what it was made of."""
    assert event.kind in KINDS
    assert event.step is None or (type(event.step) is int and 0 <= event.step < MAX_STEP)
    assert type(event.t) is float and 0 < event.t < MAX_TIME
    if event.kind == "metric":
        assert event.step is not None
    else:
        assert not event.values
    for key, value in event.values.items():
        storable_text(key)
        assert 0 < len(key) <= MAX_KEY_CHARS
        assert value is None or (type(value) in (int, float) and math.isfinite(float(value)))
    storable(event.data, MAX_DEPTH)
    written = json.dumps(event.data, allow_nan=False)  # for the database
    assert standard(written) == standard(orjson.dumps(event.data))  # for streams
    assert len(written) <= 6 * shipped + 1000  # \u1234 takes six characters
