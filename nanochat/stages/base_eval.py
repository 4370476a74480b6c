"""Stage `base_eval`: the CORE metric of a checkpoint."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Input, Stage, StageConfig


class BaseEvalConfig(StageConfig):
    """CORE: mean of the centred accuracies of in-context tasks, from a bundle on disk."""

    checkpoint: str = ""
    """Checkpoint to evaluate: a path, a latest.pt link or an id; empty: the newest."""
    tasks: str = ""
    """Tasks of the bundle, comma-separated labels; empty: all. CORE itself needs all."""
    max_per_task: int = Field(default=-1, ge=-1)
    """Examples per task at most; -1: all."""
    bundle: str = "eval_bundle"
    """Directory with core.yaml, eval_meta_data.csv and eval_data; below the base directory or a path."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Sequences of full length that the cache has room for, per rank."""


STAGE = Stage(
    name="base_eval",
    title="CORE",
    script="scripts.base_eval",
    config=BaseEvalConfig,
    inputs=(Input("checkpoint", ("base", "mid", "sft", "rl")),),
    makes_checkpoints=False,
    aliases={"-d": "dtype"},
)
