"""Config fields and checks that the training stages share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nanochat.stages.spec import Problem, StageConfig


class OptimizerConfig(StageConfig):
    """Muon for the matrices, AdamW for the embedding and the output head."""

    embedding_lr: float = Field(default=0.2, ge=0, le=10)
    """AdamW learning rate of the token embedding (scaled by (width/768)^-0.5)."""
    unembedding_lr: float = Field(default=0.004, ge=0, le=10)
    """AdamW learning rate of the output head (scaled by (width/768)^-0.5)."""
    matrix_lr: float = Field(default=0.02, ge=0, le=10)
    """Muon learning rate of the transformer matrices."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Decoupled weight decay of the AdamW groups."""
    save_every: int = Field(default=-1, ge=-1)
    """Optimizer steps between checkpoints; ≤ 0: only the last step (and a stop) saves."""
    keep_last: int = Field(default=3, ge=0)
    """Newest checkpoints that stay on disk; 0: all."""
    keep_every: int = Field(default=0, ge=0)
    """Checkpoints at multiples of this many steps stay too; 0: none."""
    keep_best: str = Field(default="", pattern=r"^[a-z0-9_/@]*$", max_length=64)
    """Metric whose lowest value keeps its checkpoint, e.g. val/bpb; empty: none."""
    spike_nats: float = Field(default=3.0, ge=0)
    """Rise of the loss above its moving average from which a step is skipped; 0: only NaN and infinity."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: when the run is long enough to win the compilation's time back."""
    use_dummy_wandb: bool = True
    """True: no Weights & Biases logging."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard too, below `tensorboard/` in the base directory."""
    resume_from: str = ""
    """Checkpoint to go on from: a path, a step, or auto (the newest of this tag, if any)."""
    model_tag: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$")
    """Name of the checkpoint directory; empty: the run's id in the service, else d<depth>."""


def nearest_multiple(value: int, unit: int) -> int:
    """The multiple of `unit` nearest to `value`, at least one `unit`."""
    return max(1, round(value / unit)) * unit


def batch_problems(total: int, device_batch: int, seq_len: int, world_size: int) -> list[Problem]:
    """`total_batch_size` must be a whole number of micro-batches over all ranks."""
    unit = device_batch * seq_len * world_size
    if total % unit == 0:
        return []
    nearest = nearest_multiple(total, unit)
    return [
        Problem(
            "/total_batch_size",
            f"total_batch_size {total} is no multiple of device_batch_size {device_batch} × max_seq_len "
            f"{seq_len} × {world_size} rank(s) = {unit} tokens; the nearest valid value is {nearest}",
            nearest,
        )
    ]


def examples_problems(target: int, device_batch: int, world_size: int) -> list[Problem]:
    """What is wrong with `target_examples_per_step`, and the nearest valid value."""
    unit = device_batch * world_size
    if target % unit == 0:
        return []
    nearest = nearest_multiple(target, unit)
    return [
        Problem(
            "/target_examples_per_step",
            f"target_examples_per_step {target} is no multiple of device_batch_size {device_batch} × "
            f"{world_size} rank(s) = {unit}; the nearest valid value is {nearest}",
            nearest,
        )
    ]
