"""Cross-entropy of soft-capped logits without the logits: they exist for a few rows at a time.

For every chunk of rows the logits, the loss and already its gradient are computed while the chunk is in
cache; what stays is the gradient of the hidden states and of the head. So the head's product is made
once, not again in the backward pass as in "Cut Your Losses" (Wijmans et al. 2024).
torch's own `linear_cross_entropy` cannot carry the soft cap.
Not covered: label smoothing, class weights, second derivatives.

# Shapes: N rows, D width, V vocabulary, C rows of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanochat.compiling import compiled

SOFTCAP = 15.0
IGNORE = -1
CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}  # of float32 logits: fits the cache, keeps a GPU busy
GRAD_CACHED = 24 << 20  # bytes of the head's gradient that stay in a CPU's cache from chunk to chunk


def softcap(z: Tensor) -> Tensor:
    """15·tanh(z/15) in float32 (Gemma 2)."""
    return SOFTCAP * torch.tanh(z.float() / SOFTCAP)


def chunk_rows(vocab_size: int, width: int, device_type: str) -> int:
    """Rows of one chunk, a multiple of 64; at least 256: below, products are slow.

    Every chunk reads and writes the head's whole gradient: on a CPU, where that no longer fits the
    cache, larger chunks cost less than smaller ones save (LOG 2026-11-24).
    """
    least = 1024 if device_type == "cpu" and 4 * vocab_size * width > GRAD_CACHED else 256
    return max(least, CHUNK_BYTES.get(device_type, 8 << 20) // (4 * vocab_size) // 64 * 64)


def head_loss(
    x_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
    *,
    grad_VD: Tensor | None = None,
) -> Tensor:
    """Σ weight·(−log p(target)) in nats over the rows whose target is not IGNORE; a scalar.

    `grad_VD`: where the head's gradient is added, at once and for a loss that goes into `backward`
    as it is; None: autograd carries it. Weights are constants.
    """
    result: Tensor = _HeadLoss.apply(x_ND, head_VD, targets_N, weights_N, grad_VD)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def head_nats(x_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """−log p(target) of every row in nats, 0 where the target is IGNORE. Without gradient."""
    w_VD = head_VD.to(x_ND.dtype)
    step = chunk_rows(w_VD.size(0), w_VD.size(1), x_ND.device.type)
    return torch.cat(
        [
            _nats(x_ND[at : at + step] @ w_VD.T, targets_N[at : at + step])
            for at in range(0, x_ND.size(0), step)
        ]
    )


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor, grad_VD: Tensor | None
    ) -> Tensor:
        w_VD = head_VD.detach().to(x_ND.dtype)
        dx_ND = torch.empty_like(x_ND)
        dw_VD = torch.zeros_like(head_VD) if grad_VD is None else grad_VD
        total = torch.zeros((), device=x_ND.device)
        step = chunk_rows(w_VD.size(0), w_VD.size(1), x_ND.device.type)
        for at in range(0, x_ND.size(0), step):
            rows = slice(at, at + step)
            x_CD = x_ND[rows]
            nats, scale_C1, dz_CV = _chunk(x_CD @ w_VD.T, targets_N[rows], weights_N[rows])
            total += nats
            # the rows' scale goes into the small factors of both products, not over all of dz
            torch.mm(dz_CV, w_VD, out=dx_ND[rows]).mul_(scale_C1)
            scaled_CD = (x_CD * scale_C1).to(x_CD.dtype)
            if dw_VD.dtype == dz_CV.dtype:
                dw_VD.addmm_(dz_CV.T, scaled_CD)
            else:
                dw_VD += dz_CV.T @ scaled_CD
        ctx.dx_ND, ctx.dw_VD = dx_ND, dw_VD if grad_VD is None else None
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        dw_VD = None if ctx.dw_VD is None else ctx.dw_VD * scale
        return ctx.dx_ND * scale.to(ctx.dx_ND.dtype), dw_VD, None, None, None


def _nats(z_CV: Tensor, targets_C: Tensor) -> Tensor:
    logits_CV = softcap(z_CV)
    picked_C = logits_CV.gather(1, targets_C.clamp_min(0)[:, None]).squeeze(1)
    return (logits_CV.logsumexp(1) - picked_C).where(targets_C != IGNORE, 0.0)


@compiled
def _chunk(z_CV: Tensor, targets_C: Tensor, weights_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ weight·nats, and the gradient by z as (a factor per row, the rest in z's type).

    One pass over z: exp(logit)·tanh′ is known before the sum of the row is.
    """
    t_CV = 1 - 2 / (torch.exp(z_CV.float() * (2 / SOFTCAP)) + 1)  # tanh(z/15), half the time of tanh
    exp_CV = torch.exp(SOFTCAP * t_CV)  # at most e¹⁵: no maximum has to be subtracted
    sum_C1 = exp_CV.sum(1, keepdim=True)
    dz_CV = (exp_CV * (1 - t_CV * t_CV)).to(z_CV.dtype)
    target_C1 = targets_C.clamp_min(0)[:, None]
    t_C1 = torch.tanh(z_CV.gather(1, target_C1).float() / SOFTCAP)
    weights_C1 = weights_C.where(targets_C != IGNORE, 0.0)[:, None]
    at_target_C1 = (torch.exp(SOFTCAP * t_C1) - sum_C1) * (1 - t_C1 * t_C1)
    dz_CV = dz_CV.scatter(1, target_C1, at_target_C1.to(z_CV.dtype))
    nats_C1 = sum_C1.log() - SOFTCAP * t_C1
    return (nats_C1 * weights_C1).sum(), weights_C1 / sum_C1, dz_CV
