"""How an attempt ended, read from what it left behind: exit code, events, failure.json, log."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat_client.types import Finish, Reason

TAIL_LINES = 200
TAIL_BYTES = 256 * 1024
#: torchrun's summary of a rank that died of a signal
RANK_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+)")


@dataclass(frozen=True)
class Exit:
    """The started process ended by itself, or because its worker asked. `code`: negative for a signal."""

    code: int
    asked: bool = False
    over_time_s: float | None = None
    """It was asked because the run had worked as long as it may."""


@dataclass(frozen=True)
class Death:
    """Nobody was there to see it end."""

    reason: Reason
    message: str
    signal: int | None = None


def outcome(directory: Path, how: Exit | Death, fence: int, seconds: float | None = None) -> Finish:
    """The report of an attempt whose processes are all gone."""
    tail = log_tail(directory / "run.log")
    end = last_end(directory / "events.jsonl")
    status = end.get("status")
    common: dict[str, Any] = {
        "fence": fence,
        "exit_code": how.code if isinstance(how, Exit) and how.code >= 0 else None,
        "peak_bytes": end.get("peak_bytes") if isinstance(end.get("peak_bytes"), int) else None,
        "seconds": seconds,
    }
    if status == "succeeded":
        return Finish(outcome="succeeded", **common)
    if isinstance(how, Exit) and how.over_time_s is not None:
        message = f"its trainers worked for max_duration_s = {how.over_time_s:g} seconds"
        return Finish(outcome="failed", reason=Reason.TIMEOUT, message=message, tail=tail, **common)
    if status == "stopped" or (isinstance(how, Exit) and how.asked):
        return Finish(outcome="stopped", **common)
    if isinstance(how, Exit) and how.code == 0:
        return Finish(outcome="succeeded", **common)
    number = _signal(how, tail)
    said = _failure(directory / "failure.json")
    if said is None or (number is not None and said[0] in (Reason.INTERNAL, Reason.NCCL_TIMEOUT)):
        said = _reason(how, number)  # the ranks that were left said only that one is gone
    reason, message = said
    return Finish(outcome="failed", reason=reason, message=message, signal=number, tail=tail, **common)


def _signal(how: Exit | Death, tail: list[str]) -> int | None:
    if isinstance(how, Death):
        return how.signal
    return -how.code if how.code < 0 else _rank_signal(tail)


def _reason(how: Exit | Death, number: int | None) -> tuple[Reason, str]:
    if isinstance(how, Death):
        return how.reason, how.message
    if number is not None:
        return Reason.KILLED_SIGNAL, f"a process of the trainer was ended by signal {number}"
    return Reason.INTERNAL, f"the trainer left with exit code {how.code}; the end of its log says more"


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


def _failure(file: Path) -> tuple[Reason, str] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Reason(found["reason"]), str(found.get("message", ""))[:4000]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rank_signal(tail: list[str]) -> int | None:
    """What ended a rank, in torchrun's words; it ends the others by SIGTERM."""
    found = [int(match.group(1)) for line in tail if (match := RANK_SIGNAL.search(line))]
    return next((number for number in found if number != signal.SIGTERM), found[0] if found else None)
