"""The control plane's figures: what is asked for, what is measured, MLflow in the same run.

    python -m tests.bench_control [--rounds 5] [--only ingest peer reads charts list lines …]

Real server processes on fresh databases, durable (SQLite synchronous=FULL, PostgreSQL as it comes), open-loop
load from plain sockets, latency from the scheduled start, medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench_control import ingest, lifecycle, live, overhead, peer, reads
from tests.bench_control.load import Connection
from tests.bench_control.service import Server, database

RATES = (5_000, 10_000, 20_000, 30_000, 45_000, 60_000, 80_000, 100_000, 125_000, 150_000, 180_000)
KINDS = ("sqlite", "postgresql")


class Bench:
    """What every part needs: rounds, seconds a measurement, where to work. Prints rows of one table."""

    def __init__(self, rounds: int, seconds: float, home: Path, mlflow: Path) -> None:
        self.rounds, self.seconds, self.home, self.mlflow = rounds, seconds, home, mlflow

    def row(self, what: str, must: str, aim: str, measured: str) -> None:
        print(f"| {what} | {must} | {aim} | {measured} |", flush=True)

    def medians(self, measure: Callable[[], tuple[float, ...]]) -> list[float]:
        return [statistics.median(one) for one in zip(*(measure() for _ in range(self.rounds)), strict=True)]

    def ingest(self) -> None:
        for kind in KINDS:
            rate, p99 = self.medians(lambda kind=kind: ingest.held(kind, self.home, RATES, self.seconds))
            self.row(f"points stored a second, {kind}, ack p99 ≤ 100 ms", "45,000", "150,000",
                     f"{rate:,.0f} (p99 {p99:.0f} ms)")  # fmt: skip

    def peer(self) -> None:
        program = peer.install(self.mlflow)
        ours, theirs = [], []
        for _ in range(self.rounds):
            theirs.append(peer.measure(program, 20))
            ours.append(self._ours())
        rate, p50, history = (statistics.median(one) for one in zip(*ours, strict=True))
        peer_rate, peer_p50, peer_history = (statistics.median(one) for one in zip(*theirs, strict=True))
        self.row("1,000 points a request, one client, SQLite, against MLflow 3", "5 ×", "20 ×",
                 f"{rate / peer_rate:.1f} × ({rate:,.0f} against {peer_rate:,.0f} points/s; "
                 f"ack p50 {p50:.0f} against {peer_p50:.0f} ms)")  # fmt: skip
        self.row("4,000 points of one key read back, against MLflow 3", "5 ×", "20 ×",
                 f"{peer_history / history:.1f} × ({history:.1f} against {peer_history:.0f} ms)")  # fmt: skip

    def _ours(self) -> tuple[float, float, float]:
        with database("sqlite", self.home) as url, Server(self.home, url, 1) as server:
            rate, p50 = ingest.closed_loop(server, 40)  # 4,000 steps
            return rate, p50, asyncio.run(_history(server))

    def reads(self) -> None:
        for kind in KINDS:
            p50, p99 = self.medians(lambda kind=kind: reads.beside_ingest(kind, self.home, self.seconds))
            self.row(f"100 reads a second beside 2,000 points/s, {kind}, p99", "50 ms", "15 ms",
                     f"{p99:.0f} ms (p50 {p50:.0f} ms)")  # fmt: skip

    def charts(self) -> None:
        for kind in KINDS:
            took = reads.charts(kind, self.home, self.rounds)
            what = f"charts: 10 runs × 10 metrics × 100,000 steps, {kind}"
            self.row(what, "300 ms", "80 ms", f"{took:.0f} ms")

    def list(self) -> None:
        for kind in KINDS:
            p50, p99 = self.medians(lambda kind=kind: reads.list_page(kind, self.home))
            self.row(f"a page of 10,000 runs, {kind}", "50 ms", "15 ms", f"{p50:.0f} ms (p99 {p99:.0f} ms)")

    def lines(self) -> None:
        p50, p99 = self.medians(lambda: live.printed_to_read("sqlite", self.home, self.seconds))
        self.row("line printed → WebSocket client, 100 lines/s, p50 / p99", "150 / 500 ms", "50 / 150 ms",
                 f"{p50:.0f} / {p99:.0f} ms")  # fmt: skip

    def readers(self) -> None:
        p50, p99, grown = self.medians(lambda: live.many_readers("sqlite", self.home, 2 * self.seconds))
        self.row("1,000 readers of one run, 20 lines/s, p99; memory", "1 s; 250 MB", "300 ms; 100 MB",
                 f"{p99:.0f} ms (p50 {p50:.0f} ms); {grown:.0f} MB")  # fmt: skip

    def lifecycle(self) -> None:
        for line in lifecycle.lines(2 * self.rounds):
            print(line, flush=True)

    def overhead(self) -> None:
        share, parts, bare = overhead.measure(self.rounds)
        seconds = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
        self.row("the service's CPU seconds beside a run, of bare torchrun's", "3 %", "1 %",
                 f"{100 * share:.1f} % ({seconds} s of {bare:.0f} s)")  # fmt: skip


async def _history(server: Server) -> float:
    """Milliseconds for all 4,000 points of one key."""
    http = await Connection(server.port).open()
    took = []
    for _ in range(5):
        started = time.perf_counter()
        await http.ask("GET", f"/runs/{server.runs[0]}/metrics?keys=train/loss&max_points=100000")
        took.append(1000 * (time.perf_counter() - started))
    http.close()
    return statistics.median(took)


PARTS = ("ingest", "peer", "reads", "charts", "list", "lines", "readers", "lifecycle", "overhead")


def main() -> int:
    flags = argparse.ArgumentParser(description="Figures of the control plane.")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    flags.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    flags.add_argument("--mlflow", type=Path, default=Path.home() / ".cache" / "nanochat-bench-mlflow")
    given = flags.parse_args()
    print("| what | must | aim | measured |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as home:
        bench = Bench(given.rounds, given.seconds, Path(home), given.mlflow)
        for part in given.only:
            getattr(bench, part)()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
