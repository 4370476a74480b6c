"""The classic model is transformers' NanoChatForCausalLM, and starts where theory says."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from nanochat.gpt import GPT, NORM_EPS, GPTConfig
from nanochat.loss import SOFTCAP

OPTIONS = [{}, {"residual_scalars": True, "value_embeddings": True}]


def noisy_model(cfg: GPTConfig, dtype: torch.dtype = torch.float32) -> GPT:
    """All projections non-zero, so that every path counts."""
    model = GPT(cfg, dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.05, generator=generator)
    return model


def hf_state(model: GPT) -> dict[str, torch.Tensor]:
    names = {
        "transformer.wte": "model.embed_tokens",
        "transformer.h": "model.layers",
        "attn.c_q": "self_attn.q_proj",
        "attn.c_k": "self_attn.k_proj",
        "attn.c_v": "self_attn.v_proj",
        "attn.c_proj": "self_attn.o_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = value
    return state


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_logits_equal_those_of_transformers(kv_heads: int) -> None:
    from transformers import NanoChatConfig, NanoChatForCausalLM

    cfg = GPTConfig(sequence_len=64, vocab_size=300, n_layer=3, n_head=2, n_kv_head=kv_heads, n_embd=128)
    model = noisy_model(cfg)
    reference = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=cfg.vocab_size,
            hidden_size=cfg.n_embd,
            intermediate_size=4 * cfg.n_embd,
            num_hidden_layers=cfg.n_layer,
            num_attention_heads=cfg.n_head,
            num_key_value_heads=cfg.n_kv_head,
            max_position_embeddings=cfg.sequence_len,
            rms_norm_eps=NORM_EPS,
            rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_theta},
            final_logit_softcapping=SOFTCAP,
            tie_word_embeddings=False,
        )
    ).eval()
    reference.load_state_dict(hf_state(model))
    ids = torch.randint(0, cfg.vocab_size, (3, 50), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        difference = (model(ids) - reference(ids).logits).abs().max()
    assert difference < 1e-4


def test_the_first_loss_is_ln_v_exactly() -> None:
    model = GPT(GPTConfig.from_depth(2, 500, 32))
    model.init_weights()
    ids = torch.randint(0, 500, (2, 32))
    assert model(ids, ids).item() == pytest.approx(math.log(500), abs=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_token_never_sees_its_future(options: dict[str, bool]) -> None:
    model = noisy_model(GPTConfig.from_depth(2, 200, 32, **options))
    ids = torch.randint(0, 200, (1, 32))
    changed = ids.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 200
    before, after = model(ids), model(changed)
    assert torch.equal(before[0, :20], after[0, :20])
    assert not torch.equal(before[0, 20:], after[0, 20:])


def test_masked_targets_do_not_count() -> None:
    model = noisy_model(GPTConfig.from_depth(2, 200, 32))
    ids = torch.randint(0, 200, (2, 32))
    targets = ids.clone()
    targets[:, 10:] = -1
    per_token = model(ids, targets, reduction="none").view(2, 32)
    assert per_token[:, 10:].abs().sum() == 0
    assert model(ids, targets).item() == pytest.approx(per_token[:, :10].mean().item(), rel=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_activation_checkpointing_changes_no_gradient(options: dict[str, bool]) -> None:
    ids = torch.randint(0, 200, (2, 32))
    gradients = []
    for recompute in (False, True):
        model = noisy_model(GPTConfig.from_depth(2, 200, 32, **options))
        model.checkpoint_activations = recompute
        model(ids, ids).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_keeps_float32_masters_and_stays_close() -> None:
    cfg = GPTConfig.from_depth(2, 200, 32)
    exact, quick = noisy_model(cfg), noisy_model(cfg, torch.bfloat16)
    ids = torch.randint(0, 200, (2, 32))
    assert all(weight.dtype == torch.float32 for weight in quick.parameters())
    loss = quick(ids, ids)
    loss.backward()
    assert loss.item() == pytest.approx(exact(ids, ids).item(), rel=0.02)
    assert all(
        weight.grad is not None and weight.grad.dtype == torch.float32 for weight in quick.parameters()
    )


def test_flops_and_parameters_match_the_formulas_of_the_schedule() -> None:
    from nanochat.schedule import flops_per_token, total_params

    model = GPT(GPTConfig.from_depth(4, 8192, 512))
    assert model.num_params() == total_params(4, 8192) == 7_340_032
    assert model.flops_per_token() == flops_per_token(4, 8192, 512) == 37_748_736


def test_modern_options_with_neutral_weights_change_nothing() -> None:
    """Scalars (1, 0) and empty value tables make the classic model; other weights do not."""
    cfg = GPTConfig.from_depth(3, 200, 32)
    classic = noisy_model(cfg)
    modern = GPT(dataclasses.replace(cfg, **OPTIONS[1]))
    missing, unexpected = modern.load_state_dict(classic.state_dict(), strict=False)
    assert not unexpected and len(missing) == 3 + 2 * 2  # a mix a block, table and gate in blocks 0 and 2
    with torch.no_grad():
        for block in modern.blocks:
            block.mix.copy_(torch.tensor((1.0, 0.0)))
            if hasattr(block.attn, "ve"):
                block.attn.ve.weight.zero_()
                block.attn.ve_gate.weight.normal_()
    ids = torch.randint(0, 200, (2, 32))
    assert torch.equal(modern(ids), classic(ids))
    for name in missing:
        again = GPT(modern.cfg)
        again.load_state_dict(modern.state_dict())
        with torch.no_grad():
            again.get_parameter(name).add_(0.5)
        assert torch.equal(again(ids), classic(ids)) == name.endswith("ve_gate.weight"), name


def test_parameters_and_flops_of_modern_match_the_schedule() -> None:
    from nanochat.schedule import flops_per_token, total_params

    model = GPT(GPTConfig.from_depth(6, 512, 64, **OPTIONS[1]))
    assert model.num_params() == pytest.approx(total_params(6, 512, value_embeddings=True), rel=1e-3)
    assert model.flops_per_token() == flops_per_token(6, 512, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_bfloat16_trains() -> None:
    model = GPT(GPTConfig.from_depth(2, 512, 128), torch.bfloat16).cuda()
    model.init_weights()
    ids = torch.randint(0, 512, (2, 128), device="cuda")
    model(ids, ids).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
