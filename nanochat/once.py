"""Stages run as a user runs them, for experiments: a second call with the same flags answers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]
DONE = "values.json"
"""The flags of a run that ended well, beside its events."""


def run_once(
    home: Path,
    attempt: Path,
    script: str,
    flags: Mapping[str, Any],
    *,
    ranks: int = 1,
    note: Mapping[str, str] | None = None,
) -> list[Event]:
    """Events of `script` with these flags, one thread a rank; `attempt` keeps its log, events and flags.

    `note` is kept with the flags: what else must be the same for the script not to run again.

    Raises CalledProcessError when the script fails (the end of its log is printed), InterruptedError when
    it was asked to stop.
    """
    wanted = json.dumps({"script": script, "ranks": ranks, **flags, **(note or {})}, sort_keys=True)
    done = attempt / DONE
    if not done.exists() or done.read_text() != wanted:
        attempt.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        (attempt / "events.jsonl").unlink(missing_ok=True)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        argv = [sys.executable, *(torchrun if ranks > 1 else []), "-m", script]
        environ = {
            **os.environ,
            "NANOCHAT_BASE_DIR": str(home),
            "NANOCHAT_ATTEMPT_DIR": str(attempt),
            "OMP_NUM_THREADS": "1",
        }
        with (attempt / "run.log").open("wb") as log:
            ended = subprocess.run(
                [*argv, *(f"--{key}={value}" for key, value in flags.items())],
                stdout=log, stderr=log, env=environ, cwd=home,
            )  # fmt: skip
        if ended.returncode:
            print((attempt / "run.log").read_text(errors="replace")[-2000:], file=sys.stderr)
            ended.check_returncode()
        if read_events(attempt)[-1].get("status") != "succeeded":
            raise InterruptedError(f"{script} was stopped before its end: see {attempt / 'run.log'}")
        done.write_text(wanted)
    return read_events(attempt)


def read_events(attempt: Path) -> list[Event]:
    return [json.loads(line) for line in (attempt / "events.jsonl").read_text().splitlines()]


def values_of(events: list[Event], metric: str) -> list[float]:
    """Every value of a metric, in order."""
    return [float(event["values"][metric]) for event in events if metric in event.get("values", {})]
