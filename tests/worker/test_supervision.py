"""One attempt, run in this process, with trainers that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanochat.paths import attempt_dir
from nanochat_client.types import Claim
from tests.server.fake_worker import FakeWorker
from tests.services import WORKER_TOKEN, Service, eventually
from worker import jobs, launch, notes
from worker.processes import marked

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:  # like torchrun: a rank in a session of its own
    subprocess.Popen([sys.executable, __file__, "rank"], start_new_session=True)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def attempt(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Runs a script as the trainer of a fresh run; returns the run as the API shows it afterwards."""
    settings = service.settings
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(settings.base_dir))
    monkeypatch.setenv("NANOCHAT_URL", service.base_url)
    monkeypatch.setenv("NANOCHAT_WORKER_TOKEN", WORKER_TOKEN)
    monkeypatch.setenv("NANOCHAT_GRACE_S", "0.5")
    monkeypatch.setenv("NANOCHAT_HOST_ID", "here")
    worker = FakeWorker(service, slots=1)
    monkeypatch.setattr(jobs, "WORKER_ID", worker.id)
    before = signal.getsignal(signal.SIGTERM)

    def run(source: str, meanwhile: Callable[[str], None] = lambda run_id: None, **body: Any) -> Any:
        script = settings.base_dir / "trainer.py"
        script.write_text(source)

        def start(claim: Claim, base_dir: Path, host: str) -> tuple[subprocess.Popen[bytes], Path]:
            directory = attempt_dir(base_dir, claim.run_id, claim.number)
            directory.mkdir(parents=True)
            environ = launch.environment(claim, base_dir, directory, os.environ, host)
            with (directory / "run.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, str(script)], env=environ, stdout=log, stderr=log, start_new_session=True
                )
            return process, directory

        monkeypatch.setattr(jobs, "start", start)
        run_id = service.client.post("/runs", json={"stage": "tokenizer", "max_restarts": 0, **body}).json()[
            "id"
        ]
        attempt_id = eventually(worker.messages)[0]
        other = threading.Thread(target=meanwhile, args=(run_id,))
        other.start()
        jobs.run_attempt(attempt_id)
        other.join()
        assert marked(settings.base_dir) == []
        assert notes.read_all(settings.base_dir, "here") == []
        return service.client.get(f"/runs/{run_id}").json()

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_stop_leaves_no_rank_alive_even_when_it_ignores_the_signal(
    attempt: Callable[..., Any], service: Service
) -> None:
    def cancel(run_id: str) -> None:
        log = service.settings.base_dir / "runs" / run_id / "attempt_1" / "run.log"
        eventually(lambda: log.exists() and log.read_text().count("ready") == 2)
        assert service.client.post(f"/runs/{run_id}/cancel").status_code == 202

    assert attempt(STUBBORN, cancel)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("source", "reason", "code", "number"),
    [
        ("raise SystemExit(3)", "internal", 3, None),
        ("import os; os.kill(os.getpid(), 9)", "killed_signal", None, 9),
        ("print('  exitcode  : -9 (pid: 5)'); raise SystemExit(1)", "killed_signal", 1, 9),
        (
            "import json, os; open(os.environ['NANOCHAT_ATTEMPT_DIR'] + '/failure.json', 'w')"
            ".write(json.dumps({'reason': 'nan_loss', 'message': 'at step 7'})); raise SystemExit(1)",
            "nan_loss",
            1,
            None,
        ),
    ],
)
def test_the_way_it_ended_decides_the_reason(
    attempt: Callable[..., Any], source: str, reason: str, code: int | None, number: int | None
) -> None:
    final = attempt(source)
    assert final["state"] == "failed"
    assert (final["reason"], final["exit_code"], final["signal"]) == (reason, code, number)


def test_a_killed_rank_is_the_reason_and_not_what_the_other_rank_says_of_it(
    attempt: Callable[..., Any],
) -> None:
    failure = {"reason": "internal", "message": "gloo: connection reset by peer"}
    final = attempt(
        "import json, os\n"
        f"open(os.environ['NANOCHAT_ATTEMPT_DIR'] + '/failure.json', 'w').write(json.dumps({failure}))\n"
        "print('  exitcode  : -15 (pid: 4)\\n  exitcode  : -9 (pid: 5)')\n"
        "raise SystemExit(1)"
    )
    assert (final["reason"], final["signal"]) == ("killed_signal", 9)


def test_a_run_that_has_worked_as_long_as_it_may_saves_and_fails_with_timeout(
    attempt: Callable[..., Any], service: Service
) -> None:
    source = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
        "while True: signal.pause()"
    )
    final = attempt(source, max_duration_s=1)
    assert (final["state"], final["reason"]) == ("failed", "timeout")
    assert "max_duration_s" in final["message"]
    log = service.settings.base_dir / "runs" / final["id"] / "attempt_1" / "run.log"
    assert log.read_text() == "saved\n"
    [shown] = service.client.get(f"/runs/{final['id']}/attempts").json()["items"]
    assert 1 <= shown["seconds"] < 20


def test_every_byte_of_a_flood_arrives_as_it_was_written(
    attempt: Callable[..., Any], service: Service
) -> None:
    source = (
        "import os, sys\n"
        "for i in range(40): os.write(1, bytes(range(256)) * 400)\n"
        "os.write(1, b'\\r50%|###|\\r' * 1000 + b'no newline at the end')\n"
    )
    final = attempt(source)
    assert final["state"] == "succeeded"
    log = service.settings.base_dir / "runs" / final["id"] / "attempt_1" / "run.log"
    shipped = service.client.get(f"/runs/{final['id']}/logs", params={"format": "text"}).content
    assert shipped == log.read_bytes()
    assert len(shipped) > 4_000_000
