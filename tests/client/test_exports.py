"""Checkpoints written for other software, by both clients: asked for, waited for, fetched in parts."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.gpt import GPT, GPTConfig
from nanochat_client import Conflict, ExportFailed, NotFound
from server.settings import Settings
from tests.client.conftest import Either, Relay
from tests.server.inference.conftest import TOKENIZER, directory, make_model
from tests.services import Service

ID = "c0000000001"


@pytest.fixture
def place(settings: Settings, service: Service) -> Path:
    """A checkpoint with 1 MB of weights, ID."""
    net = GPT(GPTConfig(64, TOKENIZER.vocab_size, 2, 2, 2, 128))
    net.init_weights()
    make_model(settings, net)
    return directory(settings)


def test_an_export_is_waited_for_and_a_broken_download_goes_on(
    connect: Callable[[str], Either], relay: Relay, place: Path, tmp_path: Path
) -> None:
    client = connect(relay.url)
    export = client.checkpoints.export(ID, dtype="bfloat16", wait=True)
    assert (export.state, export.name, export.checkpoint) == ("ready", "hf-bfloat16", ID)
    assert client.checkpoints.export(ID, dtype="bfloat16") == export
    assert client.checkpoints.exports(ID).items == [client.checkpoints.get_export(ID, "hf-bfloat16")]
    assert client.checkpoints.get(ID).id == client.checkpoints().items[0].id == ID
    seen: list[int] = []
    relay.cut_after = [export.bytes // 2]
    file = client.download(export, tmp_path / "model.tar", progress=lambda here, _: seen.append(here))
    assert not relay.cut_after and seen == sorted(seen), "nothing was fetched twice"
    with tarfile.open(file) as archive:
        names = [Path(name).name for name in archive.getnames()]
        assert names == export.files and sum(member.size for member in archive) == export.bytes


def test_what_is_not_ready_is_told_from_what_failed(either: Either, place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="hf-float32"):
        either.checkpoints.get_export(ID, "hf-float32")
    (place / "model.safetensors").unlink()
    with pytest.raises(ExportFailed, match="missing or damaged"):
        either.checkpoints.export(ID, wait=True)
    failed = either.checkpoints.get_export(ID, "hf-float32")
    with pytest.raises(Conflict, match="was failed"):
        either.download(failed, tmp_path / "model.tar")
