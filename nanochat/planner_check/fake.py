"""Peak of a real training step on fake tensors: every allocation counted, none made.

The real model, loss and optimizer run eagerly under FakeTensorMode; torch's MemTracker adds up storages.
Not covered: what kernels allocate inside themselves; compiled code; more than one rank.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import SOFTCAP, head_loss
from nanochat.optim import Optimizer, Recipe
from nanochat.planner import Setting, Shape

STEPS = 2  # the first makes AdamW's state, the second has it during the loss


def setting(
    depth: int, vocab_size: int, seq_len: int, batch: int, dtype: Any, *, recompute: bool = False, **more: Any
) -> Setting:
    """A step that MemTracker can follow: eager, on a CPU, tensors only."""
    return Setting(
        depth, vocab_size, seq_len, batch, dtype=dtype, activation_checkpoint=recompute,
        device="cpu", compiled=False, runtime=False, **more,
    )  # fmt: skip


MODERN = {"residual_scalars": True, "value_embeddings": True, "normuon": True}
SETTINGS = (
    setting(4, 8192, 512, 4, "float32"),
    setting(4, 8192, 512, 4, "bfloat16"),
    setting(4, 8192, 512, 4, "float32", recompute=True),
    setting(4, 8192, 512, 4, "bfloat16", recompute=True),
    setting(4, 1024, 1024, 8, "bfloat16"),
    setting(6, 8192, 2048, 2, "bfloat16"),
    setting(6, 8192, 2048, 2, "float32", recompute=True),
    setting(8, 32768, 256, 1, "bfloat16"),
    setting(8, 16384, 1024, 4, "bfloat16", recompute=True),
    setting(10, 32768, 1024, 2, "float32"),
    setting(10, 65536, 2048, 1, "bfloat16", recompute=True),
    setting(12, 1000, 128, 1, "bfloat16"),
    setting(4, 8192, 512, 4, "bfloat16", **MODERN),
    setting(4, 8192, 512, 4, "float32", **MODERN),
    setting(6, 8192, 1536, 3, "bfloat16", recompute=True, **MODERN),
    setting(8, 50000, 300, 3, "float32", **MODERN),
)


def tracked_peak(s: Setting, learned: float | None = None) -> int:
    """Bytes of all tensors at the worst moment of a step, as MemTracker counts them.

    `learned`: a step of fine-tuning, where this share of the tokens meets the head.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks on modules whose inputs need no gradient
        model = _model(s)
        optimizer = Optimizer(
            model, matrix_lr=0.02, embedding_lr=0.2, unembedding_lr=0.004, weight_decay=0.0,
            recipe=Recipe(normuon=s.normuon),
        )  # fmt: skip
        tracker = MemTracker()
        tracker.track_external(
            optimizer.weights, optimizer.grads, *optimizer.momentum.values(), *optimizer.squares.values(),
            model.cos_TR, model.sin_TR,
        )  # fmt: skip
        with tracker:
            for _ in range(STEPS):
                tracker.reset_mod_stats()
                _loss(model, s, learned).backward()  # type: ignore[no-untyped-call]
                optimizer.step(1.0, 0.95)
        return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def _model(s: Setting) -> GPT:
    options = {"residual_scalars": s.residual_scalars, "value_embeddings": s.value_embeddings}
    cfg = GPTConfig.from_depth(s.depth, s.vocab_size, s.seq_len, **options)
    model = GPT(cfg, getattr(torch, s.dtype)).train()
    model.checkpoint_activations = s.activation_checkpoint
    return model


def _loss(model: GPT, s: Setting, learned: float | None) -> Tensor:
    """As `micro_loss` of nanochat.train.base, or of nanochat.train.sft, over ids that are all alike."""
    ids_BT, targets_BT = (torch.zeros(s.device_batch_size, s.seq_len, dtype=torch.int64) for _ in range(2))
    targets_N = targets_BT.flatten()
    x_ND = model.hidden(ids_BT).flatten(0, 1)
    if learned is not None:
        kept_N = torch.arange(int(learned * s.tokens))
        x_ND, targets_N = x_ND[kept_N], targets_N[kept_N]
    head_VD = model.lm_head.weight
    weights_N = torch.full((x_ND.size(0),), 1.0)
    return head_loss(x_ND, head_VD, targets_N, weights_N, grad_VD=head_VD.grad)


def tracked_forward(shape: Shape, rows: int, dtype: str) -> int:
    """Bytes at the worst moment of a pass without gradient; the model's rotary tables are left out."""
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GPT(GPTConfig.from_depth(shape.depth, shape.vocab_size, shape.context), getattr(torch, dtype))
        tracker = MemTracker()
        tracker.track_external(*model.eval().parameters())
        with tracker, torch.no_grad():
            ids_BT = torch.zeros(rows, shape.context, dtype=torch.int64)
            model(ids_BT, ids_BT, reduction="none")
        return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def tracked_plain_loss(s: Setting) -> int:
    """Bytes of the cross-entropy over all logits at its worst, as published nanochat computes it.

    Logits in bfloat16, capped in bfloat16, then float32; forward and backward. Not counted: the head.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x_ND = torch.zeros(s.tokens, s.width, dtype=torch.bfloat16, requires_grad=True)
        head_VD = torch.zeros(s.vocab_size, s.width, dtype=torch.bfloat16, requires_grad=True)
        targets_N = torch.zeros(s.tokens, dtype=torch.int64)
        with MemTracker() as tracker:
            _plain_loss(x_ND, head_VD, targets_N).backward()  # type: ignore[no-untyped-call]
        return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def _plain_loss(x_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV = F.linear(x_ND, head_VD)
    logits_NV = SOFTCAP * torch.tanh(logits_NV / SOFTCAP)
    logits_NV = logits_NV.float()
    return F.cross_entropy(logits_NV, targets_N)
