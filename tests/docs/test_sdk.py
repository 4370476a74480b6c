"""The examples of docs/howto/sdk.md, run in their order against a real server."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from nanochat.paths import repo_dir
from tests import services
from tests.client.conftest import put_events, put_log
from tests.server.checkpoints.chain import checkpoint
from tests.server.fake_worker import FakeWorker, post_run
from tests.services import Service

PAGE = repo_dir() / "docs" / "howto" / "sdk.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: how a block begins that is only compiled
NEEDS_A_MODEL = "# needs a model"


@pytest.fixture(params=["sqlite"])
def database_url(sqlite_template: Any, tmp_path: Path) -> str:
    return services.copy_sqlite(sqlite_template, tmp_path)


def train_two(worker: FakeWorker, service: Service) -> None:
    """A tokenizer, which the run of the page needs, and that run."""
    post_run(service)
    for _ in range(2):
        train(worker, service)


def train(worker: FakeWorker, service: Service) -> None:
    """What a trainer does, as far as the examples look at it."""
    claim = worker.claim()
    put_log(worker, claim, "step 1\n")
    run = service.client.get(f"/runs/{claim['run_id']}").json()
    path = service.settings.base_dir / checkpoint(run)["path"]
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"x" * 7)
    metric = {"kind": "metric", "step": 1, "values": {"train/loss": 3.0, "val/bpb": 1.5}}
    put_events(worker, claim, metric, checkpoint(run))
    worker.finish(claim)


def test_the_examples_of_the_page_run(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.setenv("NANOCHAT_URL", service.base_url)
    monkeypatch.chdir(tmp_path)
    worker = FakeWorker(service)
    trainer = threading.Thread(target=train_two, args=(worker, service), daemon=True)
    trainer.start()
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for block in blocks:
        code = compile(block, str(PAGE), "exec")
        if not block.startswith(NEEDS_A_MODEL):
            exec(code, names)
    trainer.join(10)
    said = capsys.readouterr().out
    assert len(blocks) >= 9
    uploaded = "conversations 1 files/conversations/support.jsonl"
    for words in (
        "step 1", "1 3.0", "ended: succeeded", "first try", uploaded, "in_use", "/overrides/depht", "depth",
    ):  # fmt: skip
        assert words in said, said
    assert (tmp_path / "model.tar").stat().st_size > 0
    names["client"].close()
