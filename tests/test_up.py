"""`make up`'s supervisor: starts everything, keeps it alive, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from server import embedded
from server.parts import DeadForGood, Part, kill_marked
from tests.services import command_line, eventually, free_port

REPO = Path(__file__).resolve().parents[1]


class Up:
    """A service of its own, started as `make up` starts it."""

    def __init__(self, directory: Path) -> None:
        self.base, self.port = directory / "base", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, **environ: str) -> subprocess.Popen[bytes]:
        settings = {"NANOCHAT_BASE_DIR": str(self.base), "NANOCHAT_PORT": str(self.port), **environ}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "server.up"],
                cwd=REPO,
                env={**os.environ, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self, **environ: str) -> Up:
        self.process = self.command(**environ)
        eventually(lambda: self.ready() or self.process.poll() is not None, 60)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log.read_text()
        return self

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def alive_workers(self) -> int:
        found = httpx.get(f"{self.url}/workers", timeout=10).json()["items"]
        return sum(worker["alive"] for worker in found)

    def processes(self) -> list[psutil.Process]:
        """Everything that works for this service."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("NANOCHAT_BASE_DIR") == str(self.base):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def part(self, *words: str) -> psutil.Process:
        """The process whose command line ends in, or begins with, these words."""

        def look() -> psutil.Process | None:
            for process in self.processes():
                line = command_line(process)
                if tuple(line[-len(words) :]) == words or Path(line[0] if line else "").name == words[0]:
                    return process
            return None

        found = eventually(look, 30)
        assert found is not None
        return found


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    service = Up(tmp_path)
    yield service
    for process in service.processes():
        process.kill()
    if service.process is not None:
        service.process.kill()
        service.process.wait()


def test_parts_that_die_come_back_and_ctrl_c_leaves_nothing(up: Up) -> None:
    up.start()
    process = up.process
    assert process is not None
    eventually(lambda: f"{up.url}/ui/" in up.log.read_text())
    eventually(up.alive_workers, 30)
    for words in (("valkey-server",), ("-m", "server"), ("-m", "worker")):
        old = up.part(*words)
        old.kill()
        assert eventually(lambda old=old, words=words: up.part(*words).pid != old.pid, 30)
    eventually(up.ready, 30)
    eventually(lambda: up.log.read_text().count("starting it again") == 3)
    queue = embedded.socket_path(up.base / "queue")
    eventually(lambda: embedded.answers(queue))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert up.processes() == []
    assert "Traceback" not in up.log.read_text()


def test_kill_9_of_the_supervisor_leaves_nothing(up: Up) -> None:
    up.start()
    assert up.process is not None
    eventually(up.alive_workers, 30)
    assert len(up.processes()) >= 4  # supervisor, queue, server, worker
    up.process.kill()
    up.process.wait()
    eventually(lambda: not up.processes(), 60)
    again = up.start()  # nothing that the first one left is in the way
    eventually(again.alive_workers, 60)


def test_a_terminal_that_is_closed_ends_everything_in_order(up: Up) -> None:
    reader, writer = os.pipe()
    up.log = Path(f"/dev/fd/{writer}")
    up.start(PYTHONUNBUFFERED="")
    assert up.process is not None
    os.close(writer)
    os.close(reader)
    up.process.send_signal(signal.SIGHUP)
    assert up.process.wait(60) == 0
    assert up.processes() == []


def test_a_part_that_dies_for_good_stops_everything_with_one_sentence(up: Up) -> None:
    up.process = up.command(NANOCHAT_DATABASE_URL="sqlite:////no/such/directory/nanochat.db")
    assert up.process.wait(90) == 1
    said = up.log.read_text()
    (verdict,) = [line for line in said.splitlines() if "died 5 times" in line]
    assert verdict.startswith("up: the server died 5 times within a minute")
    assert "check NANOCHAT_DATABASE_URL" in said and "Traceback" not in said
    assert up.processes() == []


# ---------------------------------------------------------------- what can be in the way


def port_taken(up: Up) -> tuple[dict[str, str], object]:
    listener = socket.create_server(("127.0.0.1", up.port))
    return {}, listener


def base_dir_in_a_file(up: Up) -> tuple[dict[str, str], object]:
    file = up.base.with_name("file")
    file.touch()
    return {"NANOCHAT_BASE_DIR": str(file / "base")}, None


def port_that_is_none(up: Up) -> tuple[dict[str, str], object]:
    return {"NANOCHAT_PORT": "99999"}, None


def open_to_the_network(up: Up) -> tuple[dict[str, str], object]:
    return {"NANOCHAT_HOST": "0.0.0.0"}, None


def service_runs_already(up: Up) -> tuple[dict[str, str], object]:
    import fcntl

    up.base.mkdir()
    lock = (up.base / "up.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write("4242")
    lock.flush()
    return {}, lock


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        (port_taken, ["cannot listen on", "PORT=8001"]),
        (base_dir_in_a_file, ["cannot write to", "NANOCHAT_BASE_DIR"]),
        (port_that_is_none, ["NANOCHAT_PORT", "99999"]),
        (open_to_the_network, ["NANOCHAT_HOST=0.0.0.0", "nanochat keys create --local"]),
        (service_runs_already, ["already (process 4242)", "NANOCHAT_BASE_DIR"]),
    ],
)
def test_what_is_in_the_way_is_one_sentence_and_exit_2(
    up: Up, obstacle: Callable[[Up], tuple[dict[str, str], object]], words: list[str]
) -> None:
    environ, held = obstacle(up)
    assert up.command(**environ).wait(60) == 2
    (sentence,) = up.log.read_text().splitlines()
    assert all(word in sentence for word in words), sentence
    assert up.processes() == []
    del held


# ---------------------------------------------------------------- parts


def test_a_part_that_dies_for_good_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.parts.MAX_DEATHS", 3)
    part = Part("queue", [sys.executable, "-c", "raise SystemExit(7)"], os.environ, grace_s=1)
    part.start()
    said = []

    def look() -> bool:
        said.append(part.look())
        return False

    with pytest.raises(DeadForGood, match=r"the queue died 3 times .*exit code 7"):
        eventually(look, 60)
    assert [text for text in said if text] == ["the queue died (exit code 7); starting it again"] * 2


def test_a_part_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    source = "import signal, pathlib\nsignal.signal(15, signal.SIG_IGN)\n"
    source += f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\nwhile True: signal.pause()"
    part = Part("stubborn", [sys.executable, "-c", source], os.environ, grace_s=0.3)
    part.start()
    eventually((tmp_path / "ready").exists)
    started = time.monotonic()
    part.stop()
    assert part.process is not None and part.process.returncode == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - started < 10


def test_whatever_carries_the_mark_is_ended_in_whatever_session_it_lives() -> None:
    source = "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint(flush=True)\nwhile True: signal.pause()"
    environ = {**os.environ, "NANOCHAT_UP": "mark-of-this-test"}
    argv = [sys.executable, "-c", source]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        kill_marked("NANOCHAT_UP", "mark-of-this")
        assert process.poll() is None
        kill_marked("NANOCHAT_UP", "mark-of-this-test")
        assert process.wait(10) == -signal.SIGKILL


def test_a_long_base_directory_gets_a_short_socket_that_is_ours(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:
        assert embedded.socket_path(Path(short)) == Path(short) / "valkey.sock"
    long = tmp_path / ("x" * 100)
    path = embedded.socket_path(long)
    try:
        assert len(str(path)) < embedded.MAX_PATH_BYTES
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert embedded.socket_path(long) == path
    finally:
        path.parent.rmdir()
