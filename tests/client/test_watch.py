"""`nanochat watch ID`: the charts, the view at several sizes, and the verb on a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from nanochat_client import types
from nanochat_client.cli.chart import BLANK, bar, curve
from nanochat_client.cli.view import RunView
from nanochat_client.stream import Log, Metric, Rewind
from server.settings import Settings
from tests.client.conftest import Cli, put_events, put_log
from tests.server.fake_worker import STATS, FakeWorker, post_run
from tests.services import Service

CODE = "import sys\nfrom nanochat_client.cli import main\nmain(sys.argv[1:])"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A lease that outlasts the start of a program on a busy machine."""
    return settings.model_copy(update={"lease_s": 300.0})


def lit(lines: list[str]) -> int:
    """Dots of a braille picture."""
    return sum((ord(character) - BLANK).bit_count() for line in lines for character in line)


def test_a_bar_is_as_long_as_its_share() -> None:
    assert [bar(share, 4) for share in (-1, 0, 0.5, 0.53, 1, 7)] == [
        "····",
        "····",
        "██··",
        "██▏·",
        "████",
        "████",
    ]


def test_a_falling_curve_goes_from_the_upper_left_to_the_lower_right() -> None:
    lines = curve([0, 1, 2, 3], [3, 2, 1, 0], 10, 4)
    assert [len(line) for line in lines] == [10] * 4
    assert lines[0][0] != chr(BLANK) and lines[0][-1] == chr(BLANK)
    assert lines[-1][-1] != chr(BLANK) and lines[-1][0] == chr(BLANK)
    columns = [any(line[column] != chr(BLANK) for line in lines) for column in range(10)]
    assert all(columns), "the points are joined"


def test_one_spike_among_many_points_is_seen() -> None:
    flat = [1.0] * 10_000
    spiked = [*flat[:5000], 9.0, *flat[5001:]]
    assert lit(curve(range(10_000), spiked, 20, 4)[:3]) >= 12


def test_points_that_are_not_finite_and_no_points_leave_no_mark() -> None:
    assert lit(curve([0, 1], [float("nan"), float("inf")], 5, 2)) == 0
    assert lit(curve([], [], 5, 2)) == 0
    assert lit(curve([4], [2.0], 5, 2)) == 1


@pytest.fixture
def view(service: Service) -> RunView:
    run = types.Run.model_validate(post_run(service, name="w"))
    view = RunView(run.model_copy(update={"steps": 100}))
    for step in range(1, 11):
        view.take(Metric(step, step, 2.0 * step, {"train/loss": 10.0 / step}))
    return view


def drawn(view: RunView, columns: int, rows: int) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=rows, force_terminal=True, color_system=None)
    console.print(view, height=rows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("columns", "rows"), [(120, 40), (80, 24), (40, 10), (8, 4)])
def test_a_view_never_outgrows_its_terminal(view: RunView, columns: int, rows: int) -> None:
    gpu = {
        "index": 0,
        "name": "G",
        "utilization": 0.5,
        "memory_used_bytes": 1 << 30,
        "memory_total_bytes": 2 << 30,
    }
    stats = types.HostStats.model_validate({**STATS, "gpus": [gpu]})
    common: dict[str, Any] = {"host": "h", "name": "h", "alive": True, "slots": 1, "registered_at": 0}
    view.hosts(
        [types.Worker(id="w1", runs=[view.run.id], stats=stats, **common), types.Worker(id="w2", **common)]
    )
    view.take(Log(0, "a long line " * 30 + "\n" + "short\n" * 100 + "\x1b[31mopen"))
    lines = drawn(view, columns, rows)
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns
    if columns >= 80:
        text = "\n".join(lines)
        assert "train/loss 1, step 1 to 10" in text
        assert "10/100" in text and "3:00 left" in text  # 90 steps of 2 s
        assert "GPU 0  ████████████············  50%" in text and "1.0 GiB of 2.0 GiB" in text
        assert lines[-1] == "[31mopen", "what a log says does not steer the terminal"


def test_a_rewind_takes_back_what_is_superseded(view: RunView) -> None:
    view.take(Rewind(4, 2))
    assert view.eta_s() is None, "the speed is that of the new attempt"
    text = "\n".join(drawn(view, 80, 24))
    assert "train/loss 2.5, step 1 to 4" in text and " 4/100" in text


def test_a_line_that_is_written_over_is_shown_as_it_ends(view: RunView) -> None:
    view.take(Log(0, "10 %\r50 %\r100 %\nfrom windows\r\n1 %\r2"))
    view.take(Log(9, " %"))
    assert drawn(view, 80, 24)[-3:] == ["100 %", "from windows", "2 %"]


class Terminal:
    """`nanochat …` on a pseudo-terminal of its own."""

    def __init__(self, service: Service, *argv: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(24, 80)
        environ = {**os.environ, "NANOCHAT_URL": service.base_url, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *argv],
            env=environ,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        os.close(slave)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, seen: Callable[[str], bool], timeout_s: float = 60.0) -> str:
        """What has been written since the last call, once `seen` accepts it."""
        deadline = time.monotonic() + timeout_s
        while not seen(self.seen):
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"not seen: {self.seen[-2000:]}"
            try:
                self.seen += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # the program has left
                assert seen(self.seen), self.seen[-2000:]
        found, self.seen = self.seen, ""
        return found

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(service: Service) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as stack:

        def start(*argv: str) -> Terminal:
            return stack.enter_context(contextlib.closing(Terminal(service, *argv)))

        yield start


def metric(step: int) -> dict[str, Any]:
    return {"kind": "metric", "step": step, "t": float(step), "values": {"train/loss": 10.0 / step}}


def test_watching_on_a_terminal_follows_resizes_and_ends_with_the_run(
    terminal: Callable[..., Terminal], service: Service, worker: FakeWorker
) -> None:
    run_id = post_run(service, name="seen")["id"]
    claim = worker.claim()
    worker.beat()
    put_events(worker, claim, {"kind": "phase", "phase": "train", "steps": 9}, metric(1), metric(2))
    put_log(worker, claim, "before\n")
    shown = terminal("watch", run_id)
    first = shown.until(lambda text: "step 1 to 2" in text and "before" in text and "CPU" in text)
    assert "\x1b[?1049h" in first, "a screen of its own"
    put_events(worker, claim, metric(3), metric(4))
    put_log(worker, claim, "after\n")
    shown.until(lambda text: "step 1 to 4" in text and "after" in text and "4/9" in text)
    shown.resize(30, 120)
    shown.until(lambda text: any(len(line) > 81 for line in braille(text)))
    worker.finish(claim).raise_for_status()
    last = shown.until(
        lambda text: "\x1b[?1049l" in text and "succeeded" in text.rpartition("\x1b[?1049l")[2]
    )
    assert shown.process.wait(30) == 0, last


def braille(text: str) -> list[str]:
    return re.findall(r"[\u2800-\u28ff]+", text)


def test_ctrl_c_leaves_the_run_alone_with_130(
    terminal: Callable[..., Terminal], service: Service, worker: FakeWorker
) -> None:
    run_id = post_run(service)["id"]
    worker.claim()
    shown = terminal("watch", run_id)
    shown.until(lambda text: "no steps yet" in text)
    shown.type("\x03")
    left = shown.until(lambda text: "\x1b[?1049l" in text)
    assert shown.process.wait(30) == 130
    assert "Traceback" not in left
    assert service.client.get(f"/runs/{run_id}").json()["desired"] == "run"


def test_without_a_terminal_there_are_plain_lines(cli: Cli, service: Service, worker: FakeWorker) -> None:
    run_id = post_run(service, name="plain")["id"]
    worker.finish(worker.claim(), "failed", reason="data_error", message="no text")
    status, out, err = cli("watch", run_id)
    assert (status, "\x1b" in out) == (1, False)
    assert out.startswith("plain  failed") and "no text" in err
