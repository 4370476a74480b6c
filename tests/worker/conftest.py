"""A real worker against the real server of the `service` fixture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import WORKER_TOKEN, Service, eventually
from worker.processes import marked

StartWorker = Callable[..., subprocess.Popen[bytes]]


def worker_environment(service: Service, **extra: str) -> dict[str, str]:
    settings = service.settings
    return {
        **{key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"},
        "NANOCHAT_BASE_DIR": str(settings.base_dir),
        "NANOCHAT_URL": service.base_url,
        "NANOCHAT_REDIS_URL": settings.redis_url,
        "NANOCHAT_WORKER_TOKEN": WORKER_TOKEN,
        "NANOCHAT_STATS_S": "0.3",
        "NANOCHAT_GRACE_S": "20",
        **extra,
    }


@pytest.fixture
def start_worker(service: Service) -> Iterator[StartWorker]:
    """Starts `python -m worker`; all of them are stopped, and nothing of theirs may live on."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**extra: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker"], env=worker_environment(service, **extra), start_new_session=True
        )
        started.append(process)
        eventually(lambda: any(w["alive"] for w in service.client.get("/workers").json()["items"]), 60)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(40)
    assert marked(service.settings.base_dir) == []


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    """A corpus of two hundred small documents."""
    folder = tmp_path / "prose"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03d}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)
    return folder
