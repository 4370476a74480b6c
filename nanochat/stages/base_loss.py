"""Stage `base_loss`: bits per byte of a checkpoint on both splits of a corpus, and what it says."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Input, Stage, StageConfig


class BaseLossConfig(StageConfig):
    """Bits per byte on training and validation text, and greedy continuations of a few prompts."""

    checkpoint: str = ""
    """Checkpoint to evaluate: a path, a latest.pt link or an id; empty: the newest."""
    data: str = "pydocs"
    """Corpus: pydocs, fineweb-edu, climbmix, or a directory or file of txt, md, jsonl or parquet."""
    device_batch_size: int = Field(default=8, ge=1, le=4096)
    """Sequences per rank and forward pass."""
    split_tokens: int = Field(default=20 * 524288, ge=1)
    """Tokens to measure on each split over all ranks; at most the split's own."""
    max_new_tokens: int = Field(default=16, ge=0, le=4096)
    """Tokens to generate behind each prompt; 0: no samples."""


STAGE = Stage(
    name="base_loss",
    title="Bits per byte",
    script="scripts.base_loss",
    config=BaseLossConfig,
    inputs=(Input("checkpoint", ("base", "mid", "sft", "rl")),),
    makes_checkpoints=False,
    aliases={"-d": "dtype"},
)
