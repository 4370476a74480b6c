"""`make test-faults`: every fault many times, on both databases; what was tried and what held.

    python -m tests.faults --tries 20 --database sqlite postgresql --seed 1 --rows kill server

Trials use leases of 3 seconds. `--full-length` adds one round in which leases are the 300 seconds of a real
service and Valkey and server stay away for 3 minutes. Needs Linux; three rows need root or libfaketime.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.campaign import Campaign, Counts, running, tries
from tests.faults.rows import ROWS
from tests.services import Postgres

AWAY_S = 180.0
FULL_LENGTH = ("Valkey away", "server away")


@contextlib.contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of an empty database; empty for SQLite in the base directory."""
    if kind == "sqlite":
        yield ""
        return
    server = Postgres(f"faults-{os.getpid()}", durable=True)
    try:
        with server.database() as url:
            yield url
    finally:
        server.close()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nanochat-faults-", ignore_cleanup_errors=True) as place:
        yield Path(place)


def main() -> int:
    flags = argparse.ArgumentParser(description="Break the service on purpose and count what holds.")
    flags.add_argument("--tries", type=int, default=20, help="of each row")
    flags.add_argument("--database", nargs="+", default=["sqlite", "postgresql"], help="sqlite, postgresql")
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--rows", nargs="+", default=[], help="words; rows whose name has one of them")
    flags.add_argument("--full-length", action="store_true", help="one round: real leases, 3 minutes away")
    flags.add_argument("--keep", type=Path, help="where to leave what a try that did not hold has left")
    given = flags.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes are stopped on the way out
    rows = [row for row in ROWS if not given.rows or any(word in row.name for word in given.rows)]
    lines, well = ["| fault | database | tried | held | seconds each |", "|---|---|---|---|---|"], True
    for kind in given.database:
        with scratch() as place, database(kind) as url, running(place, url) as campaign:
            for row, counts in tries(campaign, rows, given.tries, given.seed, given.keep):
                lines.append(said(row.name, kind, counts))
                well &= counts.held == counts.tried
    if given.full_length:
        with scratch() as place, running(place, lease_s=300.0) as campaign:
            for counts, name in full_length(campaign):
                lines.append(said(f"{name} for {AWAY_S:.0f} s, leases of 300 s", "sqlite", counts))
                well &= counts.held == counts.tried
    print("\n".join(lines))
    return 0 if well else 1


def full_length(campaign: Campaign) -> Iterator[tuple[Counts, str]]:
    for row in [row for row in ROWS if row.name in FULL_LENGTH]:
        counts, started = Counts(tried=1), time.monotonic()
        try:
            campaign.attempt(row, 1, away_s=AWAY_S)
            counts.held = 1
        except Exception as error:
            counts.broken.append(f"{type(error).__name__}: {error}"[:600])
        counts.seconds = time.monotonic() - started
        yield counts, row.name


def said(name: str, kind: str, counts: Counts) -> str:
    """The row's line of the table, printed at once with what did not hold."""
    each = counts.seconds / max(1, counts.tried)
    line = f"| {name} | {kind} | {counts.tried} | {counts.held} | {each:.1f} |"
    print(line, flush=True)
    for broken in counts.broken:
        print(f"    {broken}", flush=True)
    return line


if __name__ == "__main__":
    raise SystemExit(main())
