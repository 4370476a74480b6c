"""Learning-rate and momentum schedules, and how long a run is. Torch-free, pure functions."""

from __future__ import annotations

import math


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


def stable_decay(progress: float, stable: float = 0.8) -> float:
    """Multiplier of the learning rate: 1 up to `stable` of the run, then linear to 0."""
    return min(1.0, (1 - progress) / (1 - stable))


MOMENTUM = 0.95


def muon_momentum(step: int, warmup_steps: int = 300, start: float = 0.85, end: float = MOMENTUM) -> float:
    """Momentum of Muon: linear from `start` to `end` over the first `warmup_steps`."""
    fraction = min(step / warmup_steps, 1.0)
    return (1 - fraction) * start + fraction * end


def momentum_at(step: int, steps: int, warmdown: float, final: float) -> float:
    """Muon's momentum: `muon_momentum`, then linear to `final` over the warm-down of the learning rate."""
    warmdown_steps = round(warmdown * steps)
    left = steps - step
    peak = muon_momentum(step)
    if final == MOMENTUM or left >= warmdown_steps:
        return peak
    return peak + (final - MOMENTUM) * (1 - left / warmdown_steps)


def matrix_params(depth: int) -> int:
    """Parameters in the transformer blocks at width 64·depth: 12·D²·L."""
    width = 64 * depth
    return 12 * width * width * depth


def value_embedding_layers(depth: int) -> int:
    """Blocks with a value embedding: every other one, the last among them."""
    return (depth + 1) // 2


def table_params(depth: int, vocab_size: int, value_embeddings: bool = False) -> int:
    """Parameters in tables of V rows: embedding, head, and the value embeddings. V·D each."""
    tables = 2 + (value_embedding_layers(depth) if value_embeddings else 0)
    return tables * vocab_size * 64 * depth


def total_params(depth: int, vocab_size: int, value_embeddings: bool = False) -> int:
    """All parameters: tables and blocks. Not counted: scalars and gates of `arch: modern` (below 0.1 %)."""
    return table_params(depth, vocab_size, value_embeddings) + matrix_params(depth)


def flops_per_token(depth: int, vocab_size: int, seq_len: int) -> int:
    """Forward and backward FLOPs of one token: 6·(12·D²·L + V·D) + 12·L·D·T (PaLM, appendix B).

    The embeddings are looked up, not multiplied, so only the head counts of the tables.
    """
    width = 64 * depth
    return 6 * (matrix_params(depth) + vocab_size * width) + 12 * depth * width * seq_len


def batch_tokens(depth: int, unit: int) -> int:
    """Total batch in tokens that suits a depth: 2¹⁹·(depth/12)^0.383 as the nearest power of two.

    Rounded to a multiple of `unit`. Source: nanochat's sweep of 2026.
    """
    wanted = 2.0 ** round(math.log2(2**19 * (depth / 12) ** 0.383))
    return max(1, round(wanted / unit)) * unit


def default_vocab_size(depth: int) -> int:
    """Vocabulary of a tokenizer that a base run trains by itself: small models drown in a large one."""
    return 4096 if depth <= 4 else 16384 if depth <= 8 else 32768 if depth <= 12 else 65536


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
