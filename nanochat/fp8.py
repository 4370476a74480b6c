"""Matrix products in 8 bits: e4m3 for activations and weights, e5m2 for gradients, one scale a tensor.

Scales are made anew for every product from the largest magnitude (Micikevicius et al. 2022). What is kept
for the backward pass is the 8-bit input: half of what bfloat16 keeps. Hardware: sm_89 and later; the CPU
computes the same numbers slowly, for tests. Pays from depth 16 on, compiled; slower below.
Not covered: row-wise scales, delayed scaling, the output head (see nanochat.loss).

# Shapes: N rows, K channels in, M channels out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

UNIT = 16  # the kernels want every dimension to be a multiple of this


def available(device: torch.device) -> bool:
    """Whether the device multiplies 8-bit floats in hardware."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def linear(x: Tensor, weight_MK: Tensor) -> Tensor:
    """x·Wᵀ with 8-bit operands; the result has x's type. Needs multiples of 16 in all dimensions."""
    out: Tensor = _Product.apply(x.flatten(0, -2), weight_MK)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


def fits(x: Tensor, weight_MK: Tensor) -> bool:
    """Whether `linear` takes these shapes."""
    rows = x.numel() // x.size(-1)
    return rows % UNIT == 0 and weight_MK.size(0) % UNIT == 0 and weight_MK.size(1) % UNIT == 0


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, weight_MK: Tensor) -> Tensor:
        x8_NK, x_scale = quantise(x_NK, torch.float8_e4m3fn)
        w8_MK, w_scale = quantise(weight_MK, torch.float8_e4m3fn)
        ctx.save_for_backward(x8_NK, x_scale, w8_MK, w_scale)
        ctx.weight_dtype = weight_MK.dtype
        return _multiply(x8_NK, x_scale, w8_MK.T, w_scale, x_NK.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, dy_NM: Tensor) -> tuple[Tensor, Tensor]:
        x8_NK, x_scale, w8_MK, w_scale = ctx.saved_tensors
        d8_NM, d_scale = quantise(dy_NM, torch.float8_e5m2)
        dx_NK = _multiply(d8_NM, d_scale, _columns(w8_MK), w_scale, dy_NM.dtype)
        dw_MK = _multiply(d8_NM.T.contiguous(), d_scale, _columns(x8_NK), x_scale, dy_NM.dtype)
        return dx_NK, dw_MK.to(ctx.weight_dtype)


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x / scale in `dtype`, scale): the largest magnitude of x becomes the largest number of `dtype`."""
    largest = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp_min(1e-12) / largest
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale


def _columns(x: Tensor) -> Tensor:
    """The same matrix stored column by column, as the kernels want their second operand."""
    return x.T.contiguous().T


def _multiply(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, out: torch.dtype, fast: bool = False
) -> Tensor:
    one = ScalingType.TensorWise
    # gradients are summed in full precision: their small parts matter over long sums
    return F.scaled_mm(a, b, a_scale, one, b_scale, one, output_dtype=out, use_fast_accum=fast)
