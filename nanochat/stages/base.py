"""Stage `base`: pretrain a GPT on text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nanochat.stages.spec import Input, Problem, Stage
from nanochat.stages.training import OptimizerConfig, batch_problems


def head_problems(depth: int) -> list[Problem]:
    """Width is 64·depth over ceil(width/128) heads; a head needs a whole, even number of channels."""

    def fits(candidate: int) -> bool:
        width = 64 * candidate
        heads = max(1, -(-width // 128))
        return width % heads == 0 and (width // heads) % 2 == 0

    if fits(depth):
        return []
    nearest = next(
        d for distance in range(1, 64) for d in (depth + distance, depth - distance) if d > 0 and fits(d)
    )
    return [
        Problem(
            "/depth",
            f"depth {depth} (width {64 * depth}) makes uneven heads; the nearest valid depth is {nearest}",
            nearest,
        )
    ]


class BaseConfig(OptimizerConfig):
    """Pretraining. Width is 64·depth, heads are 128 wide."""

    depth: int = Field(default=20, ge=1, le=64)
    """Transformer blocks; the width is 64 times as many channels."""
    max_seq_len: int = Field(default=2048, ge=8, le=65536)
    """Context length in tokens."""
    device_batch_size: int = Field(default=32, ge=1, le=4096)
    """Sequences per rank and micro-batch."""
    total_batch_size: int = Field(default=524288, ge=1)
    """Tokens per optimizer step over all ranks; reached by gradient accumulation."""
    num_iterations: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1: from target_flops or target_param_data_ratio."""
    target_flops: float = Field(default=-1.0, ge=-1)
    """Training FLOPs that set the number of steps; ≤ 0: off."""
    target_param_data_ratio: float = Field(default=20, ge=-1)
    """Training tokens per parameter that set the number of steps."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0: no clipping."""
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the steps over which the learning rate rises."""
    warmdown_ratio: float = Field(default=0.2, ge=0, le=1)
    """Fraction of the steps over which the learning rate falls."""
    final_lr_frac: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the last step as a fraction of the full one."""
    eval_every: int = Field(default=250, ge=-1)
    """Steps between measurements of validation bits per byte; ≤ 0: off."""
    eval_tokens: int = Field(default=20 * 524288, ge=0)
    """Validation tokens per measurement, over all ranks."""
    sample_every: int = Field(default=2000, ge=-1)
    """Steps between text samples; ≤ 0: off."""
    core_metric_every: int = Field(default=2000, ge=-1)
    """Steps between CORE evaluations; ≤ 0: off."""
    core_metric_max_per_task: int = Field(default=500, ge=-1)
    """Examples per CORE task; ≤ 0: all."""
    activation_checkpoint: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    packing: Literal["stream", "bos"] = "stream"
    """Rows cut from one stream of documents (every token is used), or rows that begin with a document."""
    use_dummy_wandb: bool = True
    """True: no Weights & Biases logging."""
    data: str = "pydocs"
    """Corpus: pydocs, fineweb-edu, climbmix, or a directory of txt, md, jsonl or parquet files."""
    tokenizer: str = ""
    """Tokenizer directory; empty: the newest one, trained on the corpus when there is none."""

    def problems(self, world_size: int) -> list[Problem]:
        found = head_problems(self.depth)
        found += batch_problems(self.total_batch_size, self.device_batch_size, self.max_seq_len, world_size)
        unit = self.device_batch_size * self.max_seq_len * world_size
        if self.eval_every > 0 and self.eval_tokens < unit:
            found.append(
                Problem(
                    "/eval_tokens",
                    f"eval_tokens {self.eval_tokens} is less than one evaluation step of {unit} tokens; "
                    f"use {unit} or more, or eval_every 0 to turn evaluation off",
                    unit,
                )
            )
        if self.num_iterations <= 0 and self.target_flops <= 0 and self.target_param_data_ratio <= 0:
            found.append(
                Problem(
                    "/num_iterations",
                    "the run has no length: set num_iterations, target_flops or target_param_data_ratio",
                    1000,
                )
            )
        return found


STAGE = Stage(
    name="base",
    title="Pretraining",
    script="scripts.base_train",
    config=BaseConfig,
    inputs=(Input("tokenizer", ("tokenizer",)),),
    aliases={"--resume_from_step": "resume_from"},
)
