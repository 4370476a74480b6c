"""Checkpoints on disk: whole or not there at all.

A checkpoint is a directory `step_NNNNNN/` with safetensors, `meta.json`, the tokenizer's files and
`manifest.json` (bytes and sha256 of every other file). It is written beside its final place, synced,
renamed, and only then linked from `latest.pt` (one link per stage directory).

Not covered: sharded files (the optimizer gathers its state first); pickled checkpoints of other projects
(see `nanochat.interop`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanochat.gpt import GPT, GPTConfig
from nanochat.paths import replace_link
from nanochat.tokenizer import Tokenizer

MANIFEST = "manifest.json"
META = "meta.json"
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
TOKEN_BYTES = "token_bytes.pt"


class BrokenCheckpoint(ValueError):
    """A checkpoint whose files do not match its manifest; the text names the file."""


@dataclass(frozen=True)
class Saved:
    """What a finished checkpoint is: place, size, identity (sha256 of its manifest)."""

    path: Path
    bytes: int
    sha256: str


def write_artefact(
    directory: Path, files: Mapping[str, bytes], tensors: Mapping[str, Mapping[str, Tensor]]
) -> Saved:
    """Write files and safetensors into `directory`, atomically, with a manifest.

    An existing artefact of that name is replaced. Raises OSError (disk full, read-only); then nothing
    has changed. Call it from one rank only.
    """
    fresh = directory.with_name(f"{directory.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        for name, state in tensors.items():
            save_file({key: _alone(value) for key, value in state.items()}, fresh / name)
        manifest = {"files": {file.name: _fingerprint(file) for file in sorted(fresh.iterdir())}}
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        (fresh / MANIFEST).write_bytes(text)
        for file in fresh.iterdir():
            fsync(file)
        fsync(fresh)
        old = directory.with_name(f"{directory.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
        fsync(directory.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    size = sum(entry["bytes"] for entry in manifest["files"].values()) + len(text)
    return Saved(directory, size, hashlib.sha256(text).hexdigest())


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files every checkpoint carries of its tokenizer."""
    import io

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(tokenizer.token_bytes), buffer)
    return {"tokenizer.json": tokenizer.to_json().encode(), TOKEN_BYTES: buffer.getvalue()}


def save_checkpoint(
    directory: Path,
    model: GPT,
    tokenizer: Tokenizer,
    meta: Mapping[str, Any],
    optimizer: Mapping[str, Tensor] | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> Saved:
    """Save a model with all that is needed to go on or to serve it, and move the stage's `latest.pt`.

    `meta` holds stage, step, config, metrics, parent and the trainer's own state; the model's sizes and
    the tokenizer's identity are added. `directory`: see `nanochat.paths.step_dir`. `weights`: a copy of
    the model's, when it may change meanwhile.
    """
    meta = {**meta, "model_config": model.cfg.to_dict(), "tokenizer_sha256": tokenizer.sha256}
    files = {META: json.dumps(meta, indent=1).encode(), **tokenizer_files(tokenizer)}
    tensors: dict[str, Mapping[str, Tensor]] = {MODEL: weights or model.state_dict()}
    if optimizer is not None:
        tensors[OPTIMIZER] = optimizer
    saved = write_artefact(directory, files, tensors)
    replace_link(directory.parent.parent / "latest.pt", directory)
    return saved


def verify(directory: Path) -> str:
    """sha256 of the manifest, after checking every file against it. Raises BrokenCheckpoint."""
    try:
        text = (directory / MANIFEST).read_bytes()
        files = json.loads(text)["files"]
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpoint(f"{directory}: no readable {MANIFEST} ({error})") from None
    for name, expected in files.items():
        file = directory / name
        if not file.is_file() or _fingerprint(file) != expected:
            raise BrokenCheckpoint(f"{file}: missing or damaged, it does not match {MANIFEST}")
    return hashlib.sha256(text).hexdigest()


def read_meta(directory: Path) -> dict[str, Any]:
    """`meta.json` of a checkpoint."""
    meta: dict[str, Any] = json.loads((directory / META).read_text(encoding="utf-8"))
    return meta


def load_model(
    directory: Path, device: torch.device | str = "cpu", compute_dtype: torch.dtype = torch.float32
) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """Model, tokenizer and meta of a checkpoint, verified. The model is in training mode.

    Raises BrokenCheckpoint, also when model and tokenizer do not belong together.
    """
    verify(directory)
    meta = read_meta(directory)
    tokenizer = Tokenizer.load(directory)
    cfg = GPTConfig(**meta["model_config"])
    if tokenizer.sha256 != meta["tokenizer_sha256"] or tokenizer.vocab_size != cfg.vocab_size:
        raise BrokenCheckpoint(f"{directory}: its tokenizer is not the one the model was trained with")
    with torch.device("meta"):
        model = GPT(cfg, compute_dtype)
    model.load_state_dict(load_file(directory / MODEL, device=str(device)), assign=True)
    for weight in model.parameters():
        weight.requires_grad_(True)
    model.reset_rotary(cfg.sequence_len)
    return model, tokenizer, meta


def load_optimizer(directory: Path) -> dict[str, Tensor]:
    """The optimizer's tensors. Raises FileNotFoundError when the checkpoint has none."""
    return load_file(directory / OPTIMIZER)


def find_checkpoints(stage_directory: Path, tag: str) -> list[Path]:
    """Checkpoints of one tag, oldest step first; unfinished ones are not among them."""
    found = (path for path in (stage_directory / tag).glob("step_*") if path.name[5:].isdigit())
    return sorted(path for path in found if (path / MANIFEST).is_file())


def _alone(value: Tensor) -> Tensor:
    """On the CPU, in memory that no other tensor shares, as safetensors wants it."""
    value = value.detach().cpu().contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
