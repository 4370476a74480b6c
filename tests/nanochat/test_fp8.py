"""8-bit products: close to the exact ones, forward and backward; refused where the hardware has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanochat import fp8
from nanochat.gpt import GPT, GPTConfig
from tests.nanochat.trainers import Home


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.detach().float() - exact.float()).norm() / exact.float().norm())


def test_values_are_scaled_into_the_range_of_the_type() -> None:
    x = torch.randn(64, 64) * 1e4
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        small, scale = fp8.quantise(x, dtype)
        assert small.dtype == dtype and torch.isfinite(small.float()).all()
        assert float(small.float().abs().max()) == torch.finfo(dtype).max
        assert relative(small.float() * scale, x) < 0.1
    zeros, scale = fp8.quantise(torch.zeros(16, 16), torch.float8_e4m3fn)
    assert float(zeros.float().abs().max()) == 0 and torch.isfinite(scale)


def test_products_and_both_gradients_are_close_to_the_exact_ones() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 64, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(96, 64, requires_grad=True)
    dy = torch.randn(2, 32, 96, dtype=torch.bfloat16)
    y = fp8.linear(x, weight)
    y.backward(dy)
    assert y.dtype == torch.bfloat16 and relative(y, (x @ weight.bfloat16().T).detach()) < 0.06
    assert x.grad is not None and relative(x.grad, dy @ weight.detach().bfloat16()) < 0.09
    exact = dy.flatten(0, 1).float().T @ x.detach().flatten(0, 1).float()
    assert weight.grad is not None and weight.grad.dtype == torch.float32
    assert relative(weight.grad, exact) < 0.09


def test_a_model_trains_in_8_bits_and_is_evaluated_as_it_is() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig.from_depth(2, 256, 32), torch.bfloat16)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.05)
    ids = torch.randint(0, 256, (2, 32))
    exact = model(ids, ids)
    model.train_in_fp8()
    rough = model(ids, ids)
    rough.backward()
    assert rough.item() != exact.item() and rough.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    assert model.eval()(ids, ids).item() == exact.item()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have them")
def test_where_the_hardware_has_no_8_bit_products_a_run_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.train_tokenizer()
    attempt = home.run("scripts.base_train", home.base_config(fp8=True), run="fp8")
    assert attempt.failure is not None and attempt.failure["reason"] == "config_error"
    assert "sm_89" in attempt.failure["message"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_8_bit_products_are_close_to_the_exact_ones() -> None:
    if not fp8.available(torch.device("cuda")):
        pytest.skip("needs sm_89 or later")
    x = torch.randn(256, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(1024, 512, device="cuda")
    assert relative(fp8.linear(x, weight), x @ weight.bfloat16().T) < 0.06
