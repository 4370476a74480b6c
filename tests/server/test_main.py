"""`python -m server` starts, or says in one sentence why not."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from server import migrate
from tests.services import copy_sqlite, free_port


def run_server(base_dir: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    given = {"NANOCHAT_BASE_DIR": str(base_dir), **environ}
    return subprocess.run(
        [sys.executable, "-m", "server"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_migrates_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path), "NANOCHAT_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "server"], env=environ, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        assert ready.status_code == 200, ready.text
        token = tmp_path / "worker.token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text()) >= 32
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run_server(tmp_path, NANOCHAT_PORT=str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "NANOCHAT_PORT" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"NANOCHAT_HOST": "0.0.0.0"}, "NANOCHAT_HOST"),
        ({"NANOCHAT_AUTH": "on"}, "NANOCHAT_AUTH"),
        ({"NANOCHAT_PORT": "eighty"}, "NANOCHAT_PORT"),
        ({"NANOCHAT_PORT": "0", "NANOCHAT_AUTH": "maybe"}, "NANOCHAT_"),
        ({"NANOCHAT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "NANOCHAT_DATABASE_URL"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(
    tmp_path: Path, environ: dict[str, str], names: str
) -> None:
    ended = run_server(tmp_path, **{"NANOCHAT_PORT": str(free_port()), **environ})
    assert ended.returncode in (1, 2)
    assert names in ended.stderr and ended.stderr.count("\n") == 1 and "Traceback" not in ended.stderr


def test_a_base_directory_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    ended = run_server(occupied)
    assert ended.returncode == 1
    assert "NANOCHAT_BASE_DIR" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_database_newer_than_the_code_is_one_sentence(tmp_path: Path, sqlite_template: Path) -> None:
    url = copy_sqlite(sqlite_template, tmp_path)
    with migrate.sync_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    port = free_port()
    ended = run_server(tmp_path, NANOCHAT_PORT=str(port))
    assert ended.returncode == 1
    assert "9999" in ended.stderr and ended.stderr.count("\n") == 1


def test_importing_the_app_loads_nothing_heavy(tmp_path: Path) -> None:
    """How long it takes is `make bench`'s to say; each of these would add a tenth of a second or more."""
    heavy = ("torch", "numpy", "pyarrow", "alembic", "openai", "typer", "tokenizers", "nanochat.gpt")
    code = f"import sys, server.app; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[]", ended.stdout + ended.stderr
