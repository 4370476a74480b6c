"""Overrides of `POST /runs` (`{"stage", "overrides", "gpus"}`): Invalid with pointers, or a stored config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.stages import STAGES
from server.problems import Invalid
from server.runs.resolve import resolve
from tests.fuzz.promises import storable

MAX_BYTES = 8192
IS_JSON = True
WORDS = (
    *STAGES, *{name for stage in STAGES.values() for name in stage.config.model_fields},
    "stage", "overrides", "gpus", "arch", "modern", "auto", "device", "cpu", "\\ud800", "\\u0000",
    "9223372036854775808", "1e308", "-1", "NaN", "Infinity", "null", "true",
)  # fmt: skip


def seeds() -> Iterator[bytes]:
    """Every stage as it comes, and with all its values given."""
    for name, stage in STAGES.items():
        yield json.dumps({"stage": name, "overrides": {}}).encode()
        yield json.dumps({"stage": name, "overrides": stage.config().model_dump(mode="json")}).encode()
    yield b'{"stage": "base", "overrides": {"depth": 13, "run": "a b", "device": "cpu"}, "gpus": 2}'


def one(data: bytes) -> None:
    try:
        body: Any = json.loads(data)  # as FastAPI reads it
    except (ValueError, RecursionError):
        return
    if not isinstance(body, dict) or not isinstance(overrides := body.get("overrides"), dict):
        return
    stage, gpus = body.get("stage"), body.get("gpus")
    try:
        stage = stage if isinstance(stage, str) else "base"
        gpus = gpus if type(gpus) is int and 0 <= gpus <= 64 else None
        found = resolve(stage, None, overrides, gpus, base=Path("/nowhere"))
    except Invalid as error:
        error.detail.encode()
        for item in error.errors:
            assert item.pointer.startswith("/"), item
            item.message.encode()
            storable(item.nearest)
        return
    storable(found.config)
    json.dumps(found.config, allow_nan=False)
