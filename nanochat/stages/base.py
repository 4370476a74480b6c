"""Stage `base`: pretrain a GPT on text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from nanochat.schedule import batch_tokens
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


#: what `arch: modern` sets; each value is a field of its own, and one given beside `arch` wins
MODERN: dict[str, Any] = {
    "residual_scalars": True,
    "value_embeddings": True,
    "normuon": True,
    "warmdown_ratio": 0.65,
    "final_lr_frac": 0.05,
    "momentum_final": 0.90,
}


class BaseConfig(OptimizerConfig):
    """Pretraining. Width is 64·depth, heads are 128 wide."""

    arch: Literal["classic", "modern"] = "classic"
    """classic: what transformers loads as NanoChat; modern: defaults of 2026 that help small models."""
    depth: int = Field(default=20, ge=1, le=64)
    """Transformer blocks; the width is 64 times as many channels."""
    max_seq_len: int = Field(default=2048, ge=8, le=65536)
    """Context length in tokens."""
    device_batch_size: int = Field(default=32, ge=1, le=4096)
    """Sequences per rank and micro-batch."""
    total_batch_size: int = Field(default=524288, ge=-1)
    """Tokens per optimizer step over all ranks, by gradient accumulation; -1: what suits the depth."""
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
    bad_steps: Literal["skip", "rollback"] = "skip"
    """After a step with NaN or a spike (spike_nats): go on without it, or from the last checkpoint."""
    activation_checkpoint: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    residual_scalars: bool = False
    """Every block mixes its input with the embedding, both scaled by learned numbers."""
    value_embeddings: bool = False
    """Every other block adds a gated table of the tokens' own values to what it attends to."""
    rope_base: float = Field(default=10_000.0, ge=1, le=1e9)
    """Base of the rotary frequencies."""
    polar_express: bool = False
    """Newton-Schulz with coefficients that change from step to step (Amsel et al. 2025)."""
    normuon: bool = False
    """Muon with rows of equal size in every update (NorMuon, Li et al. 2025)."""
    matrix_weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Cautious weight decay of the matrices: only where the update shrinks a weight anyway; falls to 0."""
    momentum_final: float = Field(default=0.95, ge=0, lt=1)
    """Muon's momentum at the last step; it falls from 0.95 over the warm-down."""
    lr_batch_tokens: int = Field(default=0, ge=0)
    """Total batch for which the learning rates hold; others scale them by √(batch/this); 0: no scaling."""
    fp8: bool = False
    """Matrix products of the blocks in 8 bits: on GPUs of sm_89 or later, worth it from depth 16 on."""
    packing: Literal["stream", "bos"] = "stream"
    """Rows cut from one stream of documents (every token is used), or rows that begin with a document."""
    data: str = "pydocs"
    """Corpus: pydocs, fineweb-edu, climbmix, or a directory or file of txt, md, jsonl or parquet."""
    tokenizer: str = ""
    """Tokenizer directory; empty: the newest one, trained on the corpus when there is none."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_arch(cls, values: Any) -> Any:
        return {**MODERN, **values} if isinstance(values, dict) and values.get("arch") == "modern" else values

    def step_tokens(self, world_size: int) -> int:
        """Tokens per optimizer step: `total_batch_size`, or what suits the depth when that is -1."""
        if self.total_batch_size > 0:
            return self.total_batch_size
        return batch_tokens(self.depth, self.device_batch_size * self.max_seq_len * world_size)

    def problems(self, world_size: int) -> list[Problem]:
        found = head_problems(self.depth)
        total = self.step_tokens(world_size)
        found += batch_problems(total, self.device_batch_size, self.max_seq_len, world_size)
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
