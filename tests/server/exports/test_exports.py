"""Checkpoints written for other software: by the real exporter, loaded by the real transformers."""

from __future__ import annotations

import contextlib
import fcntl
import io
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from nanochat.gpt import GPT, GPTConfig
from server.checkpoints.archive import Archive
from server.exports import exporter
from server.exports.exporter import Exporter
from server.settings import Settings
from tests.server.fake_worker import FakeWorker, post_run, store_checkpoint
from tests.server.inference.conftest import TOKENIZER, directory, insert, make_model
from tests.services import Service, command_line, eventually

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ID = "c0000000001"
ROUTE = f"/checkpoints/{ID}"
FILES = [
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip
#: an exporter that begins and does not end
ENDLESS = (
    sys.executable,
    "-c",
    "import sys, time, pathlib; out = pathlib.Path(sys.argv[3]); "
    "(out.parent / f'.{out.name}.1.partial').mkdir(); time.sleep(600)",
)


@pytest.fixture
def net() -> GPT:
    torch.manual_seed(1)
    net = GPT(GPTConfig(64, TOKENIZER.vocab_size, 1, 1, 1, 32))
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=0.05)
    return net


@pytest.fixture
def model(settings: Settings, service: Service, net: GPT) -> Service:
    """A service with one tiny checkpoint, ID."""
    make_model(settings, net)
    return service


def ask(service: Service, **body: str) -> httpx.Response:
    return service.client.post(f"{ROUTE}/export", json=body)


def get(service: Service, name: str = "hf-float32") -> dict[str, Any]:
    return dict(service.client.get(f"{ROUTE}/exports/{name}").raise_for_status().json())


def ended(service: Service, name: str = "hf-float32") -> dict[str, Any]:
    """The export once it is made no more."""

    def look() -> dict[str, Any] | None:
        export = get(service, name)
        return export if export["state"] != "running" else None

    found = eventually(look, timeout_s=120)
    assert found is not None
    return found


def listed(service: Service) -> list[str]:
    return [item["name"] for item in service.client.get(f"{ROUTE}/exports").json()["items"]]


def exporters(service: Service) -> list[psutil.Process]:
    """Exporters that work for this service."""
    below = str(service.settings.base_dir / "exports")
    return [p for p in psutil.Process().children() if any(below in word for word in command_line(p))]


@contextlib.contextmanager
def endless(service: Service) -> Iterator[Exporter]:
    """Exports of this service go on for ever."""
    found: Exporter = service.app.state.services.exporter
    found.command = ENDLESS
    yield found
    found.command = exporter.EXPORT


def test_an_export_is_made_fetched_and_loaded_by_transformers(
    model: Service, net: GPT, tmp_path: Path
) -> None:
    answer = ask(model, dtype="float32")
    assert answer.status_code == 202 and answer.headers["location"] == f"{ROUTE}/exports/hf-float32"
    assert answer.json() == ask(model).json() and answer.json()["state"] == "running"
    assert len(exporters(model)) <= 1
    export = ended(model)
    assert (export["state"], export["message"], export["files"]) == ("ready", "", FILES)
    again = ask(model).json()
    assert again == export and listed(model) == ["hf-float32"]
    eventually(lambda: exporters(model) == [], timeout_s=120)

    route = f"{ROUTE}/exports/hf-float32/download"
    whole = model.client.get(route)
    assert whole.headers["content-type"] == "application/x-tar"
    assert len(whole.content) == Archive(model.settings.base_dir / "exports" / f"{ID}-hf-float32", "x").size
    rest = model.client.get(route, headers={"range": "bytes=1000-", "if-range": whole.headers["etag"]})
    assert rest.status_code == 206 and whole.content[:1000] + rest.content == whole.content
    assert model.client.get(route, headers={"range": f"bytes={10**12}-"}).status_code == 416

    with tarfile.open(fileobj=io.BytesIO(whole.content)) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "there" / f"{ID}-hf-float32")
    ids = torch.randint(0, TOKENIZER.vocab_size, (2, 40))
    with torch.no_grad():
        assert (net(ids) - theirs(ids).logits).abs().max() <= 1e-5


@sqlite
def test_what_cannot_be_exported_says_why(model: Service, settings: Settings) -> None:
    assert ask(model, dtype="float16").json()["errors"][0]["pointer"] == "/dtype"
    assert ask(model, format="gguf").status_code == 422
    assert model.client.post("/checkpoints/c9999999999/export", json={}).status_code == 404
    for name in ("hf-float16", "hf-float32", "%2e%2e%2fx"):
        assert model.client.get(f"{ROUTE}/exports/{name}/download").status_code == 404
    assert "hf-bfloat16" in model.client.get(f"{ROUTE}/exports/x").json()["detail"]
    tokenizer = insert(settings, directory(settings), number=2, run="b", stage="tokenizer")
    modern = insert(settings, directory(settings), number=3, run="c")
    away = insert(settings, settings.base_dir / "nowhere", number=4, run="d")
    _set_config(model, **{tokenizer: None, modern: {"sequence_len": 8, "value_embeddings": True}})
    for checkpoint, status, said in (
        (tokenizer, 409, "no language model"),
        (modern, 409, "arch: modern"),
        (away, 404, "not on this host"),
    ):
        answer = model.client.post(f"/checkpoints/{checkpoint}/export")
        assert answer.status_code == status and said in answer.json()["detail"]
        assert model.client.get(f"/checkpoints/{checkpoint}/exports").json()["items"] == []


def _set_config(service: Service, **configs: dict[str, Any] | None) -> None:
    import asyncio

    from server.db import Database
    from server.models import Checkpoint

    async def write() -> None:
        db = Database(service.settings.sqlalchemy_url)
        async with db.write() as session:
            for checkpoint_id, config in configs.items():
                row = await session.get(Checkpoint, checkpoint_id)
                assert row is not None
                row.model_config_ = config
        await db.close()

    asyncio.run(write())


@sqlite
def test_one_that_failed_says_why_and_can_be_asked_for_again(model: Service) -> None:
    weights = directory(model.settings) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert ask(model, dtype="bfloat16").status_code == 202
    export = ended(model, "hf-bfloat16")
    assert export["state"] == "failed" and "model.safetensors: missing or damaged" in export["message"]
    assert model.client.get(f"{ROUTE}/exports/hf-bfloat16/download").status_code == 409
    weights.write_bytes(content)
    assert ask(model, dtype="bfloat16").json()["state"] == "running"
    assert ended(model, "hf-bfloat16")["state"] == "ready"
    config = model.settings.base_dir / "exports" / f"{ID}-hf-bfloat16" / "config.json"
    assert '"dtype": "bfloat16"' in config.read_text()


def test_one_that_was_interrupted_is_known_after_a_restart_and_leaves_nothing(model: Service) -> None:
    folder = model.settings.base_dir / "exports"
    with endless(model):
        ask(model)
        eventually(lambda: list(folder.glob(".*.partial")), timeout_s=60)
        (left,) = exporters(model)
        model.stop()
    assert not left.is_running() and not list(folder.glob(".*.partial"))
    (folder / f".{ID}-hf-float32.77.partial").mkdir()  # of a server that was killed
    again = Service(model.settings).start()
    try:
        export = get(again)
        assert export["state"] == "failed" and "interrupted" in export["message"]
        assert not list(folder.glob(".*.partial"))
        assert ask(again).json()["state"] == "running"
        export = ended(again)
        assert export["state"] == "ready"
        eventually(lambda: not again.app.state.services.exporter._jobs, timeout_s=120)
        shutil.rmtree(folder / f"{ID}-hf-float32")  # the disk quota
        assert listed(again) == []
    finally:
        again.stop()


@sqlite
def test_a_checkpoint_is_written_once_at_a_time_and_not_too_many_wait(
    model: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "MOST", 2)
    other = insert(settings, directory(settings), number=2, run="other")
    with endless(model):
        first, second = ask(model).json(), ask(model, dtype="bfloat16").json()
        assert (first["message"], second["message"]) == ("", exporter.WAITS)
        eventually(lambda: len(exporters(model)) == 1, timeout_s=60)
        assert listed(model) in (["hf-bfloat16", "hf-float32"], ["hf-float32", "hf-bfloat16"])
        busy = model.client.post(f"/checkpoints/{other}/export", json={})
        assert busy.status_code == 503 and busy.json()["code"] == "busy"


@sqlite
def test_what_another_server_makes_in_the_same_directory_is_not_made_twice(model: Service) -> None:
    note = model.settings.base_dir / "exports" / f".{ID}-hf-float32.note"
    note.parent.mkdir()
    with note.open("w") as held:
        held.write(exporter.INTERRUPTED)
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ask(model).json()["state"] == "running"
        assert exporters(model) == [] and get(model)["state"] == "running"
    assert get(model)["state"] == "failed"


async def test_exports_go_with_their_run(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)["id"]
    worker.finish(worker.claim())
    await store_checkpoint(service, run, "tokenizer", f"tokenizer/{run}")
    checkpoint = service.client.get(f"/runs/{run}/checkpoints").json()["items"][0]["id"]
    folder = service.settings.base_dir / "exports"
    (folder / f"{checkpoint}-hf-float32").mkdir(parents=True)
    (folder / f".{checkpoint}-hf-float32.note").touch()
    (folder / "mine").mkdir()
    assert service.client.delete(f"/runs/{run}").status_code == 204
    assert [place.name for place in folder.iterdir()] == ["mine"]
