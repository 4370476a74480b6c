"""What is printed: tables on a terminal, tab-separated text otherwise, JSON on request.

Text of runs is data: it is never read as markup, and control characters do not reach the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from nanochat_client import types
    from nanochat_client.errors import NanochatError

Json = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
#: everything a terminal would act upon, except the ends of lines and tabs
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """`text` without characters that steer a terminal."""
    return CONTROL.sub("", text)


def say(text: str) -> None:
    print(clean(text))


def fail(message: str, status: int = 2) -> NoReturn:
    print(f"nanochat: {clean(message)}", file=sys.stderr)
    raise typer.Exit(status)


def explain(error: NanochatError) -> str:
    """One sentence; then a line for each problem that says more, with the nearest valid value."""
    lines = [f"nanochat: {error.detail}"]
    for item in error.errors:
        message = "" if item.message == error.detail else f": {item.message}"
        nearest = "" if item.nearest is None else f" (nearest: {item.nearest})"
        if message or nearest:
            lines.append(f"  {item.pointer or '/'}{message}{nearest}")
    if error.status is not None and error.status >= 500 and error.request_id:
        lines.append(f"  request {error.request_id}: see the server's log")
    return clean("\n".join(lines))


def dump(value: Any) -> None:
    """JSON of models, of lists of them, or of plain values."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "") -> None:
    """A table on a terminal, else tab-separated lines without a heading, a row a line."""
    texts = [[clean(_cell(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts:
            print("\t".join(cell.replace("\n", " ") for cell in row))
        return
    if not texts and empty:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in texts:
        grid.add_row(*(Text(cell) for cell in row))
    Console().print(grid)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Lines of `name  value`; absent values are left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name:<{width}}  {_cell(value)}")


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case float():
            return f"{value:.4g}"
        case list():
            return ", ".join(str(item) for item in value)
        case _:
            return str(value)


def size(count: int) -> str:
    """Bytes as people read them."""
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def progress(run: types.Run) -> str:
    if run.steps:
        return f"{run.step or 0}/{run.steps}"
    return str(run.step) if run.step else ""


def duration(run: types.Run) -> str:
    if run.started_at is None:
        return ""
    seconds = int(((run.ended_at or datetime.now(UTC)) - run.started_at).total_seconds())
    minutes, seconds = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def first_of(values: dict[str, float], *names: str) -> float | None:
    return next((values[name] for name in names if name in values), None)
