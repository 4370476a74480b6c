"""Watch runs until they have all ended: changing lines on a terminal, a line per change otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from nanochat_client.cli.output import clean, duration, first_of, progress
from nanochat_client.errors import ConnectionFailed
from nanochat_client.types import Run, RunState

TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
POLL_S = 0.5
#: without a terminal a run that makes progress is mentioned this often
MENTION_S = 5.0
#: a service that restarts is waited for; its runs go on meanwhile
PATIENCE_S = 60.0
Fetch = Callable[[], list[Run]]


def columns(run: Run) -> list[str]:
    loss = first_of(run.summary, "train/loss", "sft/loss")
    speed = first_of(run.summary, "train/tok_per_sec")
    note = run.message or (run.blocked.message if run.blocked else "")
    return [
        clean(run.name),
        run.state.value,
        progress(run),
        "" if loss is None else f"loss {loss:.3f}",
        "" if speed is None else f"{speed:,.0f} tok/s",
        duration(run),
        clean(note),
    ]


def watch(fetch: Fetch) -> list[Run]:
    """Show the runs `fetch` returns until all have ended; returns them as they ended."""
    return _watch_terminal(fetch) if sys.stdout.isatty() else _watch_lines(fetch)


def _patient(fetch: Fetch) -> Fetch:
    since: float | None = None
    last: list[Run] = []

    def look() -> list[Run]:
        nonlocal since, last
        try:
            last = fetch()
            since = None
        except ConnectionFailed:
            since = since or time.monotonic()
            if not last or time.monotonic() - since > PATIENCE_S:
                raise
        return last

    return look


def _ended(runs: list[Run]) -> bool:
    return all(run.state in TERMINAL for run in runs)


def _watch_lines(fetch: Fetch) -> list[Run]:
    look = _patient(fetch)
    said: dict[str, tuple[RunState, int | None, str, float]] = {}
    while True:
        runs = look()
        for run in runs:
            state, step, note, when = said.get(run.id, (None, None, "", 0.0))
            now = time.monotonic()
            blocked = run.blocked.code if run.blocked else ""
            moved = run.step != step and now - when >= MENTION_S
            if run.state != state or blocked != note or moved:
                said[run.id] = (run.state, run.step, blocked, now)
                print("  ".join(cell for cell in columns(run) if cell), flush=True)
        if _ended(runs):
            return runs
        time.sleep(POLL_S)


def _watch_terminal(fetch: Fetch) -> list[Run]:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def draw(runs: list[Run]) -> Table:
        grid = Table(box=None, show_header=False, pad_edge=False)
        for run in runs:
            grid.add_row(*(Text(cell) for cell in columns(run)))
        return grid

    look = _patient(fetch)
    with Live(refresh_per_second=4) as live:
        while True:
            runs = look()
            live.update(draw(runs))
            if _ended(runs):
                return runs
            time.sleep(POLL_S)
