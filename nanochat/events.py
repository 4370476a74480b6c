"""What a trainer says while it works: one JSON object a line in `events.jsonl`.

The file is the truth; everything else (database, live stream, charts) is derived from it by replay.
Not covered: losing the last line to a power cut (lines are flushed to the kernel, not fsynced; a
checkpoint event is written after the checkpoint itself was fsynced).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal["phase", "metric", "checkpoint", "sample", "first_batch", "eval", "warning", "end"]
KINDS: tuple[str, ...] = (
    "phase", "metric", "checkpoint", "sample", "first_batch", "eval", "warning", "end",
)  # fmt: skip


class EventLog:
    """Appends events to a file. `path=None` drops them (ranks other than 0).

    `on_metric` is called with step and values of every metric event, `on_event` with kind and fields of
    every event, written or dropped.

    Fields by kind, next to `t` (unix seconds) and `kind`:
      phase       phase: str ("data", "train", "resume", "eval", …), step: int
      metric      step: int, values: {name: float}
      checkpoint  step, stage, path (below the base directory), bytes, sha256 (of the manifest),
                  metrics: {name: float}, model: {…} | None, origin: {…} | None (nanochat.lineage);
                  or step, path, removed: true
      sample      step, prompt, text
      first_batch step (that is about to be made), batch: rows of the micro-batch, rows: the first of them
                  (nanochat.train.first_batch)
      eval        step, name, values: {name: float}, counts: {name: int}, details: {…}
      warning     message, step?
      end         step, status: "succeeded" | "stopped", peak_bytes: int
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        # unbuffered: a line reaches the kernel in one call, so a killed trainer leaves no half line behind
        self._file = path.open("ab", buffering=0) if path is not None else None
        self.on_metric: Callable[[int, Mapping[str, float]], None] | None = None
        self.on_event: Callable[[Kind, Mapping[str, Any]], None] | None = None

    def emit(self, kind: Kind, **fields: Any) -> None:
        """Append one event. NaN and infinity become null, so that every line is standard JSON."""
        if kind == "metric" and self.on_metric is not None:
            self.on_metric(fields["step"], fields["values"])
        if self.on_event is not None:
            self.on_event(kind, fields)
        if self._file is None:
            return
        line = json.dumps(_finite({"t": round(time.time(), 3), "kind": kind, **fields}), ensure_ascii=False)
        self._file.write(line.encode("utf-8", "replace") + b"\n")

    def metric(self, step: int, **values: float) -> None:
        """One metric event; names use `__` where the wire uses `/` (train__loss → train/loss)."""
        self.emit("metric", step=step, values={name.replace("__", "/"): v for name, v in values.items()})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
