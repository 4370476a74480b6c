"""Causal attention: torch's fused kernels on GPUs, blocks of matrix products on CPUs.

On CPUs torch's fused kernel reaches a third of what the matrix products themselves do (LOG 2026-11-24),
so short contexts take them: a block of queries against the keys it may see, probabilities kept for the
backward pass. Queries and keys are RMS-normed, so scores lie within ±√E and need no maximum subtracted.
Not covered: dropout, masks other than causal.

# Shapes: B batch, H query heads, K key/value heads, T tokens, E head width, Q queries of a block, S keys.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
LONGEST = 1024  # probabilities take B·H·T²/2 numbers a layer: beyond this the fused kernel saves memory


def causal_attention(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
    """softmax(q·kᵀ/√E)·v with every token seeing itself and what came before: (B, H, T, E)."""
    grouped = q_BHTE.size(1) != k_BKTE.size(1)
    if q_BHTE.device.type != "cpu" or q_BHTE.size(2) > LONGEST or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=grouped)
    if grouped:
        groups = q_BHTE.size(1) // k_BKTE.size(1)
        k_BKTE = k_BKTE.repeat_interleave(groups, 1)
        v_BKTE = v_BKTE.repeat_interleave(groups, 1)
    out: Tensor = _BlockAttention.apply(q_BHTE, k_BKTE, v_BKTE)  # type: ignore[no-untyped-call]
    return out


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        B, H, T, E = q.shape
        q, k, v = (x.reshape(B * H, T, E) for x in (q, k, v))
        outs, probabilities = [], []
        for start in range(0, T, BLOCK):
            end = min(T, start + BLOCK)
            p = _probabilities(torch.bmm(q[:, start:end], k[:, :end].mT), start, E**-0.5)
            probabilities.append(p)
            outs.append(torch.bmm(p, v[:, :end]))
        ctx.save_for_backward(q, k, v, *probabilities)
        return torch.cat(outs, 1).view(B, H, T, E)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *probabilities = ctx.saved_tensors
        B, H, T, E = dy.shape
        dy = dy.reshape(B * H, T, E)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start, p in zip(range(0, T, BLOCK), probabilities, strict=True):
            end = min(T, start + BLOCK)
            rows = slice(start, end)
            dv[:, :end] += torch.bmm(p.mT, dy[:, rows])
            ds = _score_gradient(p, torch.bmm(dy[:, rows], v[:, :end].mT), E**-0.5)
            dq[:, rows] = torch.bmm(ds, k[:, :end])
            dk[:, :end] += torch.bmm(ds.mT, q[:, rows])
        return dq.view(B, H, T, E), dk.view(B, H, T, E), dv.view(B, H, T, E)


def _probabilities(s_NQS: Tensor, start: int, scale: float) -> Tensor:
    """Row-wise softmax of the scores of queries `start`, `start` + 1, …"""
    rows = torch.arange(start, start + s_NQS.size(1), device=s_NQS.device)[:, None]
    seen_QS = torch.arange(s_NQS.size(2), device=s_NQS.device)[None, :] <= rows
    exp_NQS = torch.exp(s_NQS.float() * scale).where(seen_QS, 0.0)
    return (exp_NQS / exp_NQS.sum(-1, keepdim=True)).to(s_NQS.dtype)


def _score_gradient(p_NQS: Tensor, dp_NQS: Tensor, scale: float) -> Tensor:
    p, dp = p_NQS.float(), dp_NQS.float()
    return (p * (dp - (p * dp).sum(-1, keepdim=True)) * scale).to(p_NQS.dtype)
