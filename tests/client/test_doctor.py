"""`nanochat doctor` on this machine and against the real server, database and queue."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from nanochat_client.cli import doctor
from server.settings import Settings
from tests.client.conftest import Cli
from tests.server.fake_worker import FakeWorker
from tests.services import Service


@contextlib.contextmanager
def beating(worker: FakeWorker) -> Iterator[None]:
    """It stays alive for as long as torch takes to import on a busy machine."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(2):
            worker.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture(autouse=True)
def here(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(settings.base_dir))
    monkeypatch.setenv("NANOCHAT_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("NANOCHAT_REDIS_URL", settings.redis_url)


def test_all_is_well_with_a_worker(cli: Cli, worker: FakeWorker, service: Service) -> None:
    corpus = service.settings.base_dir / "base_data" / "mine"
    corpus.mkdir(parents=True)
    for number in range(2):
        (corpus / f"shard_{number:05}.parquet").touch()
    with beating(worker):
        status, out, _ = cli("doctor")
    lines = out.splitlines()
    assert status == 0, out
    assert f"ok    worker: {worker.host_id}" in lines
    assert "ok    corpus: mine (2 shards)" in lines
    for name in ("python", "torch", "database", "queue", f"server: {service.base_url}"):
        assert f"ok    {name}" in out
    before = [line for line, fix in pairwise(lines) if fix.startswith("      $ ")]
    assert all(line.startswith("warn") for line in before), "what is ok needs no command"


@pytest.mark.usefixtures("cli")
def test_a_service_without_a_worker_fails() -> None:
    checks = {check.name: check for check in doctor._service()}
    assert [name for name, check in checks.items() if check.level == "fail"] == ["worker"]
    assert checks["worker"].fix == "nanochat worker"


@pytest.mark.usefixtures("cli")
def test_a_port_that_another_program_holds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:  # takes connections and says nothing
        port = other.getsockname()[1]
        monkeypatch.setenv("NANOCHAT_URL", f"https://127.0.0.1:{port}")
        monkeypatch.setattr("nanochat_client._http.CONNECT_S", 0.2)
        checks = {check.name: check for check in doctor._service()}
    assert {name for name, check in checks.items() if check.level == "fail"} == {"port", "server"}
    assert f"--port {port + 1}" in checks["port"].fix


def test_a_base_directory_below_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctor._writable(tmp_path / "file" / "below")
    assert check.level == "fail" and "NANOCHAT_BASE_DIR" in check.fix
    assert doctor._corpus(tmp_path).level == "warn"
