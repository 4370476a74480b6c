"""Block attention is the attention of the fused kernel, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nanochat.attention import BLOCK, LONGEST, causal_attention


def inputs(tokens: int, kv_heads: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(tokens)
    shapes = ((2, 4, tokens, 16), (2, kv_heads, tokens, 16), (2, kv_heads, tokens, 16))
    q, k, v = (torch.randn(shape) for shape in shapes)
    q, k = (4 * F.normalize(x, dim=-1) for x in (q, k))  # RMS-normed, as in the model
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize("tokens", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 44, LONGEST + 8])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_same_result_and_gradients_as_the_fused_kernel(tokens: int, kv_heads: int) -> None:
    q, k, v = inputs(tokens, kv_heads)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads != 4)
    dy = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (q, k, v), dy)
    y = causal_attention(q, k, v)
    mine = torch.autograd.grad(y, (q, k, v), dy)
    assert torch.allclose(y, expected, atol=1e-5)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=2e-5)
