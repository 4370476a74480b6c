"""Checkpoints of karpathy/nanochat, late 2025: `model_000700.pt` and `meta_000700.json`.

They are copied once into a checkpoint of ours, which then loads, resumes and serves like any other.
Pickles are read without running what is in them, weights in a process of its own.
Not covered: their optimizer files (a resumed run begins with fresh momenta); the 2026 architecture.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

from nanochat.checkpoint import MANIFEST, read_meta, save_checkpoint
from nanochat.errors import DataError
from nanochat.gpt import GPT, GPTConfig
from nanochat.interop.pickled import read_weights
from nanochat.paths import stage_dir
from nanochat.tokenizer import Tokenizer

MODEL = re.compile(r"model_(\d{6})\.pt")
STAGES = {
    "base_checkpoints": "base",
    "mid_checkpoints": "mid",
    "chatsft_checkpoints": "sft",
    "chatrl_checkpoints": "rl",
}
SIZES = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")


def model_file(found: Path) -> Path | None:
    """The original's model file that `found` is, or the one of the highest step in the directory it is."""
    if found.is_file():
        return found if MODEL.fullmatch(found.name) else None
    files = [file for file in found.glob("model_*.pt") if MODEL.fullmatch(file.name)]
    return max(files, default=None, key=lambda file: file.name)


def model_files(found: Path) -> list[Path]:
    """`found` itself, or the highest step of every tag in it: in a tag, a stage or a base directory."""
    if found.is_file():
        return [found] if MODEL.fullmatch(found.name) else []
    folders = (found, *sorted(found.glob("*/")), *sorted(found.glob("*/*/")))
    return [file for folder in folders if (file := model_file(folder))]


def adopt(file: Path, base: Path) -> Path:
    """Our checkpoint with the weights of `file`, made when it is not there yet.

    Its tag is `imported-` and the original's; a second original of that name gets some letters more.
    Raises DataError when a file that belongs to it is missing or is of another kind.
    """
    step = int(MODEL.fullmatch(file.name).group(1))  # type: ignore[union-attr]
    stage = next((STAGES[part.name] for part in file.parents if part.name in STAGES), "base")
    tag = re.sub(r"[^a-z0-9._-]", "-", f"imported-{file.parent.name}".lower())[:64]
    place = stage_dir(base, stage) / tag / f"step_{step:06d}"
    if (place / MANIFEST).is_file() and read_meta(place).get("imported_from") != str(file):
        other = f"{tag[:57]}-{hashlib.sha256(bytes(file.parent)).hexdigest()[:6]}"
        place = stage_dir(base, stage) / other / place.name
    if (place / MANIFEST).is_file():
        return place
    meta_file = file.with_name(f"meta_{step:06d}.json")
    try:
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        sizes: dict[str, Any] = {name: int(meta["model_config"][name]) for name in SIZES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{meta_file}: not the description of a nanochat model of 2025 ({error})") from None
    tokenizer = find_tokenizer(file, base)
    model = GPT(GPTConfig(**sizes))
    state = {name.removeprefix("_orig_mod."): value for name, value in read_weights(file, base).items()}
    try:
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        raise DataError(f"{file}: not the weights its description says ({str(error)[:300]})") from None
    if tokenizer.vocab_size != sizes["vocab_size"]:
        raise DataError(
            f"{file} has {sizes['vocab_size']:,} tokens, the tokenizer beside it {tokenizer.vocab_size:,}"
        )
    metrics = {"val/bpb": meta["val_bpb"]} if isinstance(meta.get("val_bpb"), float) else {}
    save_checkpoint(place, model, tokenizer, _our_meta(meta, stage, step, file, metrics))
    return place


def _our_meta(
    meta: dict[str, Any], stage: str, step: int, file: Path, metrics: dict[str, float]
) -> dict[str, Any]:
    config = meta.get("user_config") or {}
    loop = meta.get("loop_state") or {}
    tokens = step * int(config.get("total_batch_size") or 0)
    progress = {"step": step, "tokens": tokens, "seconds": float(loop.get("total_training_time") or 0.0)}
    return {
        "stage": stage,
        "step": step,
        "steps": step,
        "config": {},
        "metrics": metrics,
        "progress": progress,
        "data": {"row": tokens // int(meta["model_config"]["sequence_len"]), "lengths": []},
        "parent": None,
        "tokenizer": None,
        "imported_from": str(file),
    }


def find_tokenizer(file: Path, base: Path) -> Tokenizer:
    """The tokenizer of the original: `tokenizer/tokenizer.pkl` of its base directory, or ours."""
    for folder in (*file.parents, base):
        if (folder / "tokenizer" / "tokenizer.pkl").is_file():
            return read_pickled_tokenizer(folder / "tokenizer" / "tokenizer.pkl")
    raise DataError(f"no tokenizer/tokenizer.pkl in a directory above {file}: copy it there")


def read_pickled_tokenizer(file: Path) -> Tokenizer:
    """A tiktoken Encoding that was pickled, without running the pickle. Raises DataError."""
    try:
        state = _Encodings(io.BytesIO(file.read_bytes())).load().state
        return Tokenizer(dict(state["mergeable_ranks"]), str(state["pat_str"]))
    except (pickle.UnpicklingError, AttributeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise DataError(f"{file} is no pickled tiktoken encoding ({error})") from None


class _Holder:
    """Stands in for `tiktoken.Encoding`: keeps the pickled state, makes nothing of it."""

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


class _Encodings(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("tiktoken.core", "Encoding"):
            return _Holder
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which no tokenizer needs")
