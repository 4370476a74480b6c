"""Learning-rate and momentum schedules, and how long a run is. Torch-free, pure functions."""

from __future__ import annotations


def warmup_stable_decay(step: int, steps: int, warmup: float, warmdown: float, final: float) -> float:
    """Multiplier of the learning rate at `step` of `steps`.

    Rises linearly over the first `warmup` (fraction of `steps`), stays 1, then falls linearly to
    `final` over the last `warmdown` (fraction). Source: nanochat's base schedule.
    """
    warmup_steps = round(warmup * steps)
    warmdown_steps = round(warmdown * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if step <= steps - warmdown_steps:
        return 1.0
    progress = (steps - step) / warmdown_steps
    return progress + (1 - progress) * final


def muon_momentum(step: int, warmup_steps: int = 300, start: float = 0.85, end: float = 0.95) -> float:
    """Momentum of Muon: linear from `start` to `end` over the first `warmup_steps`."""
    fraction = min(step / warmup_steps, 1.0)
    return (1 - fraction) * start + fraction * end


def matrix_params(depth: int) -> int:
    """Parameters in the transformer blocks at width 64·depth: 12·D²·L."""
    width = 64 * depth
    return 12 * width * width * depth


def total_params(depth: int, vocab_size: int) -> int:
    """All parameters: two untied embeddings (V·D each) and the blocks."""
    return 2 * vocab_size * 64 * depth + matrix_params(depth)


def flops_per_token(depth: int, vocab_size: int, seq_len: int) -> int:
    """Forward and backward FLOPs of one token: 6·(N − V·D) + 12·L·D·T (PaLM, appendix B)."""
    width = 64 * depth
    return 6 * (total_params(depth, vocab_size) - vocab_size * width) + 12 * depth * width * seq_len


def training_steps(
    *,
    num_iterations: int,
    target_flops: float,
    target_param_data_ratio: float,
    depth: int,
    vocab_size: int,
    seq_len: int,
    total_batch_tokens: int,
) -> int:
    """Optimizer steps of a base run: explicit, else by FLOPs, else by tokens per parameter. At least 1."""
    if num_iterations > 0:
        return num_iterations
    if target_flops > 0:
        return max(
            1, round(target_flops / (flops_per_token(depth, vocab_size, seq_len) * total_batch_tokens))
        )
    tokens = target_param_data_ratio * total_params(depth, vocab_size)
    return max(1, int(tokens // total_batch_tokens))
