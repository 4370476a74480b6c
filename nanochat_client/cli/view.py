"""What `nanochat watch ID` knows of a run, and how that looks at a given size of the terminal.

`RunView` is fed with what the stream brings and with the hosts' load, and is drawn by rich as often as it
likes: loss (or reward) over steps, a bar for every GPU or the host, the end of the log, progress and time
left. Texts of the run are shown as text. Not covered: more than one run (pipelines have a line per run).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nanochat_client.cli.chart import bar, curve
from nanochat_client.cli.output import clean, duration, first_of, size
from nanochat_client.stream import End, Item, Log, Metric, Rewind, State

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

    from nanochat_client.types import Metrics, Run, RunState, Worker

#: what is drawn is the first of these that the run has; rl is judged by its reward, not by its loss
DRAWN = ("reward/mean", "train/loss", "sft/loss", "sft/val_loss", "val/bpb")
LOG_LINES = 200
BAR_COLUMNS = 24
#: speed is judged over so many of the latest steps that arrived
RECENT = 64
#: a curve keeps at most twice so many points; half of them go when there are more
POINTS = 2000


class RunView:
    """Mutable: `take` and `hosts` change it, from any thread; `__rich_console__` draws it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.step = run.step or 0
        self.ended: RunState | None = None
        self._lock = threading.Lock()
        self._latest: dict[str, float] = dict(run.summary)
        self._workers: Sequence[Worker] = ()
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._open_line = ""
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def history(self, found: Metrics) -> None:
        """Curves so far, down-sampled by the service."""
        for series in found.series:
            pairs = zip(series.x, series.y, strict=True)
            self._curves[series.key] = [(int(x), y) for x, y in pairs if y is not None]

    def take(self, item: Item) -> None:
        with self._lock:
            self._take(item)

    def _take(self, item: Item) -> None:
        match item:
            case Log(text=text):
                self._log(text)
            case Metric(step=int(step), t=t, values=values):
                self._metric(step, t, values)
            case Rewind(step=step):
                self._rewind(step)
            case State(run=run):
                self.run = run
                self._latest = run.summary | self._latest
            case End(state=state):
                self.ended = state
            case _:
                pass

    def hosts(self, workers: Sequence[Worker]) -> None:
        """Those who work on this run, else all that are alive."""
        mine = [worker for worker in workers if self.run.id in worker.runs]
        with self._lock:
            self._workers = mine or [worker for worker in workers if worker.alive]

    def eta_s(self) -> float | None:
        """Seconds to the last step at the speed of the latest steps; None before there is a speed."""
        if len(self._steps) < 2 or not self.run.steps:
            return None
        (began, first), (now, last) = self._steps[0], self._steps[-1]
        if last <= first or now <= began:
            return None
        return max(0, self.run.steps - last) * (now - began) / (last - first)

    def _log(self, text: str) -> None:
        whole, newline, rest = (self._open_line + text).rpartition("\n")
        self._lines.extend(_shown(line) for line in whole.split("\n") if newline)
        self._open_line = rest

    def _metric(self, step: int, t: float, values: dict[str, float | None]) -> None:
        for key, value in values.items():
            if value is None:
                continue
            self._latest[key] = value
            points = self._curves.setdefault(key, [])
            points.append((step, value))
            if len(points) > 2 * POINTS:
                del points[1:-1:2]
        if not self._steps or step > self._steps[-1][1]:
            self._steps.append((t, step))
        self.step = max(step, self.step)

    def _rewind(self, step: int) -> None:
        for key, points in self._curves.items():
            self._curves[key] = [point for point in points if point[0] <= step]
        self._steps.clear()
        self.step = step

    # ---------------------------------------------------------------- drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, rows = options.max_width, options.height or console.size.height
        with self._lock:
            parts = self._parts(columns, rows)
        for line in parts[:rows]:
            line.truncate(columns, overflow="ellipsis")
            yield line

    def _parts(self, columns: int, rows: int) -> list[Text]:
        bars = self._bars()
        spare = rows - 4 - len(bars)
        chart_rows = max(3, spare * 3 // 5)
        return [
            self._title(),
            *self._chart(columns, chart_rows),
            self._progress(),
            *bars,
            *self._tail(max(0, spare - chart_rows)),
        ]

    def _title(self) -> Text:
        from rich.text import Text

        run = self.run
        color = {"running": "green", "succeeded": "green", "failed": "red"}.get(run.state.value, "yellow")
        title = Text(f"{clean(run.name)}  {run.stage}  ", style="bold", no_wrap=True)
        title.append(run.state.value, style=color)
        note = run.message or (run.blocked.message if run.blocked else "")
        return title.append(f"  {clean(note)}" if note else "", style="not bold")

    def _chart(self, columns: int, rows: int) -> list[Text]:
        from rich.text import Text

        key = next((name for name in DRAWN if len(self._curves.get(name, ())) > 0), None)
        if key is None:
            return [Text("no steps yet", style="dim")] + [Text("")] * rows
        points = self._curves[key]
        xs, ys = [float(step) for step, _ in points], [value for _, value in points]
        labels = [f"{value:.4g}" for value in (max(ys), min(ys))]
        margin = max(len(label) for label in labels) + 1
        sides = [labels[0], *[""] * (rows - 2), labels[1]]
        lines = [
            Text(side.rjust(margin - 1) + " ", style="dim").append(line, style="not dim cyan")
            for side, line in zip(sides, curve(xs, ys, columns - margin, rows), strict=True)
        ]
        caption = f"{key} {ys[-1]:.4g}, step {points[0][0]} to {points[-1][0]}"
        return [*lines, Text(" " * margin + caption, style="dim")]

    def _progress(self) -> Text:
        from rich.text import Text

        run = self.run
        cells = [f"took {duration(run)}"] if run.started_at else []
        if run.steps:
            done = max(self.step, 0)
            cells = [f"{bar(done / run.steps, BAR_COLUMNS)} {done}/{run.steps}", *cells]
        if (eta_s := self.eta_s()) is not None and self.ended is None:
            until = time.strftime("%H:%M", time.localtime(time.time() + eta_s))
            cells.append(f"{_clock(eta_s)} left, until {until}")
        if (speed := first_of(self._latest, "train/tok_per_sec")) is not None:
            cells.append(f"{speed:,.0f} tok/s")
        return Text("  ".join(cells))

    def _bars(self) -> list[Text]:
        from rich.text import Text

        lines = []
        for worker in self._workers:
            for name, share, kind, used, total in _load(worker):
                memory = (
                    f"{bar(used / total if total else 0.0, BAR_COLUMNS // 2)} {size(used)} of {size(total)}"
                )
                text = f"{name:<6} {bar(share, BAR_COLUMNS)} {share:>4.0%}  {memory}  "
                lines.append(Text(text).append(clean(f"{kind}, {worker.name}"), style="dim"))
        return lines[:16]

    def _tail(self, rows: int) -> list[Text]:
        from rich.text import Text

        lines = [*self._lines, *([_shown(self._open_line)] if self._open_line else [])]
        return [Text(line, style="dim", no_wrap=True) for line in (lines[-rows:] if rows else [])]


def _shown(line: str) -> str:
    """What a terminal would be left with: a carriage return begins the line anew."""
    return clean(line.rstrip("\r").rpartition("\r")[2])


def _load(worker: Worker) -> Iterator[tuple[str, float, str, int, int]]:
    """Of each device: name, utilisation (0…1), kind, bytes used, bytes there are."""
    if (host := worker.stats) is None:
        return
    yield "CPU", host.cpu, f"{host.cores} cores", host.memory_used_bytes, host.memory_total_bytes
    for gpu in host.gpus:
        busy = gpu.utilization or 0.0
        yield f"GPU {gpu.index}", busy, gpu.name, gpu.memory_used_bytes, gpu.memory_total_bytes


def _clock(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
