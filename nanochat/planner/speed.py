"""Seconds of one optimizer step, predicted from FLOPs, bytes and shares of the peak. Torch-free.

Every share is a guess of ours until a probe has measured it (`nanochat plan … --probe`). Not covered:
start-up and compilation, evaluation, saving, a loader that cannot keep up.
"""

from __future__ import annotations

from nanochat.hardware import Gpu
from nanochat.planner.setting import Setting
from nanochat.schedule import flops_per_token, matrix_params, total_params

MFU = {True: 0.42, False: 0.27}  # compiled, eager; predicted. Known: 0.21 eager with recomputation, 2 cards
RECOMPUTE = 4 / 3  # a second forward pass
BETWEEN_CARDS = 20e9  # bytes/s over PCIe 4/5 without NVLink, both directions busy
NS_EFFICIENCY = 0.5  # of the bf16 peak, in Newton-Schulz
NS_STEPS = 5
#: FLOP/s of a training step on two cores with AVX512-BF16: 7,000 tokens/s at depth 4 (docs/decisions/0006);
#: float32 half of it, guessed. Other CPUs differ
CPU_FLOPS = {"bfloat16": 2.6e11, "float32": 1.3e11}


def step_seconds(s: Setting, total_tokens: int, gpu: Gpu | None) -> float:
    """One step over `total_tokens`: compute, then what of optimizer and traffic is not hidden behind it."""
    passes = RECOMPUTE if s.activation_checkpoint else 1.0
    flops = passes * flops_per_token(s.depth, s.vocab_size, s.seq_len) * total_tokens
    if gpu is None:
        return flops / CPU_FLOPS[s.dtype]
    compute_s = flops / (gpu.bf16_flops * s.ranks * MFU[s.compiled])
    return compute_s + _optimizer_s(s, gpu) + _traffic_s(s, total_tokens, compute_s)


def _optimizer_s(s: Setting, gpu: Gpu) -> float:
    D = s.width
    squares = 4 * 6 * D**3  # x·xᵀ, gram², gram·x: 2·D³ each, of four matrices
    rectangles = 2 * (2 * 8 * D**3 + 2 * D**3)
    ns_s = NS_STEPS * s.depth * (squares + rectangles) / s.ranks / (gpu.bf16_flops * NS_EFFICIENCY)
    state_bytes = 4 * total_params(s.depth, s.vocab_size, s.value_embeddings)
    return ns_s + 6 * state_bytes / s.ranks / gpu.bandwidth  # weights, gradients, state: read and written


def _traffic_s(s: Setting, total_tokens: int, compute_s: float) -> float:
    """Gradients go there, hidden behind the last backward pass as far as possible; weights come back."""
    if s.ranks == 1:
        return 0.0
    sent = 4 * (matrix_params(s.depth) + s.tables) * (s.ranks - 1) / s.ranks
    one_way_s = sent / BETWEEN_CARDS
    accumulation = max(1, total_tokens // (s.tokens * s.ranks))
    hidden_s = min(one_way_s, compute_s / accumulation * 0.6)
    return 2 * one_way_s - hidden_s
