"""A checkpoint is whole or not there at all."""

from __future__ import annotations

import pydoc_data.topics
import shutil
from pathlib import Path

import pytest
import torch

from nanochat import checkpoint
from nanochat.checkpoint import (
    BrokenCheckpoint,
    find_checkpoints,
    load_model,
    load_optimizer,
    save_checkpoint,
    verify,
    write_artefact,
)
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 300)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "base_checkpoints" / "d2" / "step_000007"


@pytest.fixture
def model() -> GPT:
    model = GPT(GPTConfig.from_depth(2, TOKENIZER.vocab_size, 32))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return model


def test_what_is_saved_is_loaded_bit_by_bit(place: Path, model: GPT) -> None:
    saved = save_checkpoint(place, model, TOKENIZER, {"stage": "base", "step": 7}, {"m": torch.arange(3.0)})
    again, tokenizer, meta = load_model(place)
    ids = torch.randint(0, TOKENIZER.vocab_size, (2, 32))
    assert torch.equal(again(ids), model(ids))
    assert tokenizer.sha256 == TOKENIZER.sha256
    assert (meta["step"], saved.sha256) == (7, verify(place))
    assert saved.bytes == sum(file.stat().st_size for file in place.iterdir())
    assert torch.equal(load_optimizer(place)["m"], torch.arange(3.0))
    assert all(weight.requires_grad for weight in again.parameters())


def test_latest_points_at_the_newest_whole_checkpoint(place: Path, model: GPT) -> None:
    save_checkpoint(place, model, TOKENIZER, {})
    newer = place.with_name("step_000009")
    save_checkpoint(newer, model, TOKENIZER, {})
    link = place.parent.parent / "latest.pt"
    assert link.is_symlink() and link.resolve() == newer
    assert find_checkpoints(place.parent.parent, "d2") == [place, newer]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_damage_is_found_before_anything_is_used(place: Path, model: GPT, damage: str) -> None:
    save_checkpoint(place, model, TOKENIZER, {})
    file = place / ("manifest.json" if damage == "manifest" else "model.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        file.write_bytes(content)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(BrokenCheckpoint):
        load_model(place)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_rubbish(
    place: Path, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(place, model, TOKENIZER, {"note": "old"})
    before = verify(place)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(place, model, TOKENIZER, {"note": "new"})
    assert verify(place) == before
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_an_unfinished_checkpoint_is_not_found(place: Path, model: GPT) -> None:
    save_checkpoint(place, model, TOKENIZER, {})
    shutil.copytree(place, place.with_name("step_000009.tmp"))
    (place.with_name("step_000010")).mkdir()
    assert find_checkpoints(place.parent.parent, "d2") == [place]


def test_a_foreign_tokenizer_is_refused(place: Path, model: GPT) -> None:
    save_checkpoint(place, model, TOKENIZER, {})
    files = {file.name: file.read_bytes() for file in place.iterdir() if file.name != "manifest.json"}
    files["tokenizer.json"] = Tokenizer.train(iter(["other text"] * 3), 280).to_json().encode()
    write_artefact(place, files, {})
    with pytest.raises(BrokenCheckpoint, match="tokenizer"):
        load_model(place)
