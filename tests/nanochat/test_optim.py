"""Muon and AdamW: what one step does, and that state survives a save."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.checkpoint import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import head_loss
from nanochat.optim import Optimizer, Recipe, equalise, orthogonalise
from tests.nanochat.test_checkpoint import TOKENIZER

RATES: dict[str, Any] = {
    "matrix_lr": 0.02,
    "embedding_lr": 0.2,
    "unembedding_lr": 0.004,
    "weight_decay": 0.0,
    "ns_dtype": torch.float32,
}


MODERN = Recipe(polar_express=True, normuon=True, matrix_weight_decay=0.1, lr_factor=0.5)
OPTIONS = {"residual_scalars": True, "value_embeddings": True}


def make(seed: int = 0, modern: bool = False) -> tuple[GPT, Optimizer]:
    torch.manual_seed(seed)
    model = GPT(GPTConfig.from_depth(2, 64, 16, **(OPTIONS if modern else {})))
    model.init_weights()
    return model, Optimizer(model, **RATES, recipe=MODERN if modern else Recipe())


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 64, (4, 17), generator=generator)
    return ids[:, :-1], ids[:, 1:]


def learn(model: GPT, optimizer: Optimizer, steps: range, limit: float = 1.0, every: int = 2) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero()
        loss = model(*batch(step % every))
        loss.backward()
        optimizer.reduce()
        optimizer.clip(math.sqrt(float(optimizer.square_norm())), limit)
        optimizer.step(1.0, 0.9)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (2, 16, 64)])
@pytest.mark.parametrize(("polar", "spread"), [(False, 0.5), (True, 0.2)])
def test_orthogonalised_matrices_have_singular_values_near_one(
    shape: tuple[int, ...], polar: bool, spread: float
) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape), torch.float32, polar))
    assert float(values.min()) > 1 - spread and float(values.max()) < 1 + spread


@pytest.mark.parametrize("shape", [(2, 64, 16), (2, 16, 64)])
def test_equalised_updates_keep_their_size_and_even_out_their_lines(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    line = -1 if shape[1] > shape[2] else -2
    lines = torch.rand([2, 64, 1] if line == -1 else [2, 1, 64]) + 0.1
    update, squares = torch.randn(shape) * lines, torch.zeros_like(lines)
    for _ in range(200):
        equal = equalise(update, squares)
    assert torch.allclose(equal.norm(dim=(-2, -1)), update.norm(dim=(-2, -1)), rtol=1e-4)
    sizes = equal.norm(dim=line)
    assert float((sizes.amax(-1) / sizes.amin(-1)).max()) < 1.01 < float(lines.max() / lines.min())


def test_cautious_decay_only_shrinks_what_the_update_shrinks_too() -> None:
    plain_model, plain = make(modern=True)
    decayed_model, decayed = make(modern=True)
    plain.recipe = Recipe(polar_express=True, normuon=True)
    name = "transformer.h.0.attn.c_proj.weight"
    before = torch.randn(128, 128, generator=torch.Generator().manual_seed(4))
    for model, optimizer in ((plain_model, plain), (decayed_model, decayed)):
        with torch.no_grad():
            model.get_parameter(name).copy_(before)
            torch.nn.init.ones_(model.lm_head.weight[:3])
        learn(model, optimizer, range(1))
    update = plain_model.get_parameter(name).detach() - before
    extra = decayed_model.get_parameter(name).detach() - before - update
    shrinks = before * update < 0
    assert float(extra[~shrinks].abs().max()) == 0
    assert torch.allclose(extra[shrinks], -before[shrinks] * 0.02 * 0.5 * 0.1, atol=1e-6)


def test_a_gradient_of_zeros_moves_nothing_and_makes_no_nan() -> None:
    model, optimizer = make()
    before = [weight.clone() for weight in model.parameters()]
    optimizer.zero()
    optimizer.step(1.0, 0.95)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_backward_writes_into_the_flat_buffer() -> None:
    model, optimizer = make()
    optimizer.zero()
    model(*batch(0)).backward()
    squares = sum(
        float(weight.grad.square().sum()) for weight in model.parameters() if weight.grad is not None
    )
    assert optimizer.grads.numel() == optimizer.weights.numel() == model.num_params()
    assert float(optimizer.square_norm()) == pytest.approx(squares, rel=1e-5)


def test_clipping_scales_the_whole_gradient_to_the_limit() -> None:
    _, optimizer = make()
    optimizer.grads.fill_(1.0)
    norm = math.sqrt(float(optimizer.square_norm()))
    assert norm == pytest.approx(math.sqrt(optimizer.grads.numel()))
    optimizer.clip(norm, 2.0)
    assert float(optimizer.grads.norm()) == pytest.approx(2.0, rel=1e-3)
    before = optimizer.grads.clone()
    optimizer.clip(2.0, 0.0)  # no limit
    optimizer.clip(2.0, 5.0)  # below the limit
    assert torch.equal(optimizer.grads, before)


def test_muon_moves_a_matrix_by_its_learning_rate_in_every_direction() -> None:
    model, optimizer = make()
    weight = model.get_parameter("transformer.h.0.mlp.c_fc.weight")  # 512 × 128
    before = weight.detach().clone()
    torch.nn.init.normal_(model.lm_head.weight)
    learn(model, optimizer, range(1))
    values = torch.linalg.svdvals(weight.detach() - before)
    expected = RATES["matrix_lr"] * math.sqrt(512 / 128)
    # the gradient through a zeroed c_proj is zero: only directions with a gradient move
    assert float(values.max()) <= 1.5 * expected


@pytest.mark.parametrize("modern", [False, True])
def test_training_lowers_the_loss(modern: bool) -> None:
    model, optimizer = make(modern=modern)
    losses = learn(model, optimizer, range(30))
    assert losses[0] == pytest.approx(math.log(64), abs=1e-5) and losses[-1] < 1.0


@pytest.mark.parametrize("modern", [False, True])
def test_state_saved_and_loaded_gives_the_same_next_steps(modern: bool) -> None:
    model, optimizer = make(modern=modern)
    learn(model, optimizer, range(5))
    state = {key: value.clone() for key, value in optimizer.state().items()}
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    expected = learn(model, optimizer, range(5, 10))
    again, fresh = make(seed=9, modern=modern)
    again.load_state_dict(weights)
    fresh.load_state(state)
    assert learn(again, fresh, range(5, 10)) == expected


def test_without_its_state_the_next_steps_differ() -> None:
    model, optimizer = make()
    learn(model, optimizer, range(5))
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    expected = learn(model, optimizer, range(5, 10))
    again, fresh = make(seed=9)
    again.load_state_dict(weights)
    assert learn(again, fresh, range(5, 10)) != expected


def shard(rank: int, size: int, place: Path, overlap: bool, modern: bool, results: Any) -> None:
    """One of several gloo ranks: vocabulary 65 and three layers, which two and four ranks do not divide."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{place}", rank=rank, world_size=size)
    model, optimizer = odd(modern)
    for step in range(4):
        optimizer.zero()
        x, y = batch(step)
        x_ND = model.hidden(x[rank::size]).flatten(0, 1)
        head = model.lm_head.weight
        share = torch.full((x_ND.size(0),), 1 / x_ND.size(0))
        loss = head_loss(x_ND, head, y[rank::size].flatten(), share, grad_VD=head.grad)
        if overlap:
            optimizer.overlap()
        loss.backward()
        optimizer.reduce()
        square = optimizer.square_norm()
        torch.distributed.all_reduce(square)
        optimizer.clip(float(square.sqrt()), 1.0)
        optimizer.step(1.0, 0.9)
        if step == 1:  # a save and a load in the middle must change nothing
            optimizer.load_state({key: value.clone() for key, value in optimizer.state().items()})
    state = optimizer.state()
    if rank == 0:
        torch.save((model.state_dict(), state), results)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def odd(modern: bool) -> tuple[GPT, Optimizer]:
    torch.manual_seed(3)
    model = GPT(GPTConfig(16, 65, 3, 2, 2, 32, **(OPTIONS if modern else {})))
    model.init_weights()
    # Adam makes a whole step of rounding in a value's first tiny gradient: small steps keep that small
    rates = {**RATES, "embedding_lr": 0.002} if modern else RATES
    return model, Optimizer(model, **rates, recipe=MODERN if modern else Recipe())


@pytest.mark.parametrize(
    ("size", "overlap", "modern"), [(2, False, False), (2, True, False), (4, True, False), (2, True, True)]
)
def test_shared_by_ranks_it_makes_the_same_steps(
    tmp_path: Path, size: int, overlap: bool, modern: bool
) -> None:
    results = tmp_path / "rank0.pt"
    torch.multiprocessing.spawn(shard, (size, tmp_path / "store", overlap, modern, results), size)
    weights, state = torch.load(results)
    model, optimizer = odd(modern)
    learn(model, optimizer, range(4), every=4)
    for name, expected in model.state_dict().items():
        assert torch.allclose(weights[name], expected, atol=2e-5), name
    for name, expected in optimizer.state().items():
        assert torch.allclose(state[name], expected, atol=2e-5), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_the_gpu_equals_one_on_the_cpu() -> None:
    cpu_model, cpu = make()
    gpu_model = GPT(cpu_model.cfg)
    gpu_model.load_state_dict(cpu_model.state_dict())
    gpu_model.to("cuda")
    gpu_model.reset_rotary(16)
    gpu = Optimizer(gpu_model, **RATES)
    for model, optimizer in ((cpu_model, cpu), (gpu_model, gpu)):
        x, y = batch(0)
        device = model.lm_head.weight.device
        optimizer.zero()
        model(x.to(device), y.to(device)).backward()
        optimizer.step(1.0, 0.9)
    for ours, theirs in zip(cpu_model.parameters(), gpu_model.parameters(), strict=True):
        assert torch.allclose(ours, theirs.cpu(), atol=1e-3)


def test_a_checkpoint_is_loaded_and_a_step_made_without_the_compiler(tmp_path: Path) -> None:
    model = GPT(GPTConfig.from_depth(2, TOKENIZER.vocab_size, 16))
    model.init_weights()
    save_checkpoint(tmp_path / "step_000001", model, TOKENIZER, {"stage": "base", "step": 1})
    code = f"""
import sys
from pathlib import Path
from nanochat.checkpoint import load_model
from tests.nanochat.test_optim import Optimizer, RATES, learn
model, _, _ = load_model(Path({str(tmp_path)!r}) / "step_000001")
learn(model, Optimizer(model, **RATES), range(2))
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
