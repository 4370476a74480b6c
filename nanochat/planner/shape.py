"""The sizes of a model that is there already: what its checkpoint says of it. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.paths import find_artefact, stage_dir
from nanochat.schedule import total_params, value_embedding_layers
from nanochat.stages.base import BaseConfig

GATE_CHANNELS = 32  # nanochat.gpt, which this must not import; a test compares the counts


@dataclass(frozen=True)
class Shape:
    """A model of width 64·depth with as many key and value heads as query heads."""

    depth: int
    vocab_size: int
    context: int
    value_embeddings: bool = False
    residual_scalars: bool = False

    @property
    def width(self) -> int:
        return 64 * self.depth

    @property
    def heads(self) -> int:
        return max(1, -(-self.width // 128))

    @property
    def params(self) -> int:
        """All of them, scalars and gates of `arch: modern` included."""
        values = value_embedding_layers(self.depth) if self.value_embeddings else 0
        small = 2 * self.depth * self.residual_scalars + values * GATE_CHANNELS * self.heads
        return total_params(self.depth, self.vocab_size, self.value_embeddings) + small

    def to_config(self) -> dict[str, Any]:
        """As a checkpoint's `model_config` has it."""
        return {
            "n_layer": self.depth, "vocab_size": self.vocab_size, "sequence_len": self.context,
            "n_embd": self.width, "n_head": self.heads, "n_kv_head": self.heads,
            "value_embeddings": self.value_embeddings, "residual_scalars": self.residual_scalars,
        }  # fmt: skip


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape behind a checkpoint's `model_config`. Raises ValueError for one that is not planned."""
    try:
        found = Shape(
            depth=int(config["n_layer"]),
            vocab_size=int(config["vocab_size"]),
            context=int(config["sequence_len"]),
            value_embeddings=bool(config.get("value_embeddings", False)),
            residual_scalars=bool(config.get("residual_scalars", False)),
        )
        sizes = (int(config["n_embd"]), int(config["n_head"]), int(config["n_kv_head"]))
    except (LookupError, TypeError, ValueError):
        raise ValueError("its checkpoint does not say how large the model is") from None
    if sizes != (found.width, found.heads, found.heads):
        raise ValueError(
            f"its model is {sizes[0]} wide with {sizes[1]} heads of queries and {sizes[2]} of keys: only "
            f"widths of 64·depth and 128 a head are planned"
        )
    return found


def shape_of_base(cfg: BaseConfig, vocab_size: int) -> Shape:
    """The shape of the model that a base run makes."""
    return Shape(cfg.depth, vocab_size, cfg.max_seq_len, cfg.value_embeddings, cfg.residual_scalars)


def model_config_at(name: str, stages: Sequence[str], base: Path) -> Mapping[str, Any] | None:
    """What the checkpoint `name` says of its model; empty: the newest of the first of `stages` that has one.

    None when there is none below `base`, or nothing can be read.
    """
    places: list[Path] = []
    if name:
        with suppress(FileNotFoundError):
            places = _whole(find_artefact(name, base))
    else:
        found = (_whole(stage_dir(base, stage)) for stage in stages)
        places = next((whole for whole in found if whole), [])
    if not places:
        return None
    newest = max(places, key=lambda place: (place / "manifest.json").stat().st_mtime_ns)
    with suppress(OSError, ValueError, KeyError, TypeError):
        meta = json.loads((newest / "meta.json").read_text(encoding="utf-8"))
        return dict(meta["model_config"])
    return None


def _whole(place: Path) -> list[Path]:
    """Checkpoints at `place` or up to two directories below it."""
    found = [file.parent for depth in ("", "*/", "*/*/") for file in place.glob(f"{depth}manifest.json")]
    return [one for one in found if one.suffix not in (".tmp", ".old") and not one.is_symlink()]
