"""How an attempt ended, read from what it left behind: exit code, events, failure.json, log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nanochat_client.types import Finish, Reason

TAIL_LINES = 200
TAIL_BYTES = 256 * 1024
#: torchrun's summary of a rank that died of a signal
RANK_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+)")


def outcome(directory: Path, code: int, fence: int, stop_asked: bool) -> Finish:
    """The report of an attempt whose processes are all gone. `code`: of the started process."""
    tail = log_tail(directory / "run.log")
    end = last_end(directory / "events.jsonl")
    common: dict[str, Any] = {
        "fence": fence,
        "exit_code": code if code >= 0 else None,
        "peak_bytes": end.get("peak_bytes") if isinstance(end.get("peak_bytes"), int) else None,
    }
    if end.get("status") == "succeeded":
        return Finish(outcome="succeeded", **common)
    if stop_asked or (code == 0 and end.get("status") == "stopped"):
        return Finish(outcome="stopped", **common)
    if code == 0:
        return Finish(outcome="succeeded", **common)
    signal = -code if code < 0 else _rank_signal(tail)
    reason, message = _failure(directory / "failure.json")
    if reason is None and signal is not None:
        reason, message = Reason.KILLED_SIGNAL, f"a process of the trainer was ended by signal {signal}"
    if reason is None:
        reason, message = (
            Reason.INTERNAL,
            f"the trainer left with exit code {code}; the end of its log says more",
        )
    return Finish(outcome="failed", reason=reason, message=message, signal=signal, tail=tail, **common)


def log_tail(file: Path) -> list[str]:
    """The last 200 lines, each cut at 2,000 characters."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line[:2000] for line in text.splitlines()[-TAIL_LINES:]]


def last_end(file: Path) -> dict[str, Any]:
    """The attempt's `end` event, or nothing."""
    for line in reversed(log_tail(file)):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("kind") == "end":
            return event
    return {}


def _failure(file: Path) -> tuple[Reason | None, str | None]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Reason(found["reason"]), str(found.get("message", ""))[:4000]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _rank_signal(tail: list[str]) -> int | None:
    found = [match for line in tail if (match := RANK_SIGNAL.search(line))]
    return int(found[0].group(1)) if found else None
