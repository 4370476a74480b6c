"""The loss without the logits: same value, same gradients, ignored targets, chunks that do not divide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import nanochat.loss
from nanochat.loss import IGNORE, SOFTCAP, chunk_rows, head_loss, head_nats


def inputs(rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(rows)
    x = (3 * torch.randn(rows, 24)).to(dtype).requires_grad_()
    head = torch.randn(50, 24).requires_grad_()
    targets = torch.randint(0, 50, (rows,))
    targets[::5] = IGNORE
    return x, head, targets, torch.rand(rows)


def reference(x: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = SOFTCAP * torch.tanh((x.float() @ head.T) / SOFTCAP)
    return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nanochat.loss, "chunk_rows", lambda *_: 64)


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("rows", [2, 63, 64, 65, 200])
@pytest.mark.parametrize("into", [False, True])
def test_value_and_gradients_are_those_of_the_plain_loss(rows: int, into: bool) -> None:
    x, head, targets, weights = inputs(rows)
    expected = (reference(x, head, targets) * weights).sum() * 2.5
    dx, dw = torch.autograd.grad(expected, (x, head))
    grad = torch.ones_like(head) if into else None
    loss = head_loss(x, head, targets, weights, grad_VD=grad) * (1.0 if into else 2.5)
    loss.backward()
    factor = 2.5 if into else 1.0
    assert loss.item() * factor == pytest.approx(expected.item(), rel=1e-5)
    assert x.grad is not None and torch.allclose(x.grad * factor, dx, atol=1e-5)
    if grad is None:
        assert head.grad is not None and torch.allclose(head.grad, dw, atol=1e-4)
    else:
        assert head.grad is None and torch.allclose((grad - 1) * factor, dw, atol=1e-4)


@pytest.mark.usefixtures("_small_chunks")
def test_nats_per_row_without_gradient() -> None:
    x, head, targets, _ = inputs(130)
    assert torch.allclose(head_nats(x, head, targets), reference(x, head, targets), atol=1e-5)


@pytest.mark.usefixtures("_small_chunks")
def test_bfloat16_stays_near_float32() -> None:
    x, head, targets, weights = inputs(100, torch.bfloat16)
    expected = (reference(x, head, targets) * weights).sum()
    dx, dw = torch.autograd.grad(expected, (x, head))
    loss = head_loss(x, head, targets, weights)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    assert x.grad is not None and head.grad is not None
    for mine, theirs in ((x.grad.float(), dx.float()), (head.grad, dw)):
        assert F.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0) > 0.999


def test_logits_at_the_cap_neither_overflow_nor_lose_the_target() -> None:
    x = torch.full((2, 24), 50.0, requires_grad=True)
    head = torch.randn(50, 24).sign() * 10
    loss = head_loss(x, head, torch.tensor([3, 4]), torch.ones(2))
    loss.backward()
    assert torch.isfinite(loss) and x.grad is not None and torch.isfinite(x.grad).all()


def test_chunks_fit_the_budget_unless_the_heads_gradient_leaves_the_cache() -> None:
    assert chunk_rows(8192, 512, "cpu") * 8192 * 4 <= 8 << 20
    assert chunk_rows(65536, 768, "cuda") * 65536 * 4 <= 256 << 20
    assert (chunk_rows(24576, 256, "cpu"), chunk_rows(24577, 256, "cpu")) == (256, 1024)
    assert chunk_rows(10**6, 768, "cuda") == 256
