"""Muon for the matrices, AdamW for the embedding and the head.

Replicated: every rank holds all state and makes the same update from the reduced gradient, so a
checkpoint is complete on rank 0 and another number of ranks can go on from it. All gradients lie in one
flat buffer: one reduction, one norm, and matrices of one shape are a stack without copying.
Not covered: sharded state, overlap of reduction and backward pass.

# Shapes: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nanochat.gpt import GPT

#: quintic Newton-Schulz coefficients of Muon (Jordan et al. 2024)
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5


def orthogonalise(g_NRC: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest semi-orthogonal matrix to each of N stacked R×C matrices, roughly.

    Five Newton-Schulz steps drive all singular values to about 1.
    """
    a, b, c = NS_COEFFICIENTS
    x = g_NRC.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NS_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g_NRC.dtype)


class Optimizer:
    """One step for a whole GPT. Learning rates are given at full height; `step` scales them.

    Use: `zero()`, backward passes, reduce `flat` over the ranks, `clip(limit)`, `step(…)`.
    """

    def __init__(
        self, model: GPT, *, matrix_lr: float, embedding_lr: float, unembedding_lr: float, weight_decay: float
    ) -> None:
        self.matrix_lr = matrix_lr
        self.dtype = model.compute_dtype
        self.groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for name, weight in model.named_parameters():
            if name.startswith("transformer.h."):
                self.groups.setdefault((weight.size(0), weight.size(1)), []).append(weight)
        wte, head = model.get_parameter("transformer.wte.weight"), model.get_parameter("lm_head.weight")
        weights = [weight for group in self.groups.values() for weight in group] + [wte, head]
        self.flat = torch.zeros(sum(weight.numel() for weight in weights), device=wte.device)
        offset = 0
        for weight in weights:
            weight.grad = self.flat[offset : offset + weight.numel()].view_as(weight)
            offset += weight.numel()
        self.momentum = {
            shape: torch.zeros(len(group), *shape, device=wte.device) for shape, group in self.groups.items()
        }
        scale = (model.cfg.n_embd / 768) ** -0.5
        self.adam_weights = {"wte": (wte, embedding_lr * scale), "lm_head": (head, unembedding_lr * scale)}
        self.adamw = torch.optim.AdamW(
            [{"params": [weight], "lr": lr, "full_lr": lr} for weight, lr in self.adam_weights.values()],
            betas=(0.8, 0.95),
            eps=1e-10,
            weight_decay=weight_decay,
            fused=True,
        )

    def zero(self) -> None:
        """Forget all gradients."""
        self.flat.zero_()

    def clip(self, limit: float) -> float:
        """Global norm of the (reduced) gradient, which is then scaled down to `limit` (0: no limit)."""
        norm = float(self.flat.norm())
        if 0 < limit < norm:
            self.flat *= limit / (norm + 1e-6)
        return norm

    @torch.no_grad()
    def step(self, lr_scale: float, momentum: float) -> None:
        """Update every weight from its gradient."""
        for group in self.adamw.param_groups:
            group["lr"] = group["full_lr"] * lr_scale
        self.adamw.step()
        offset = 0
        for (rows, columns), weights in self.groups.items():
            count = len(weights) * rows * columns
            g_NRC = self.flat[offset : offset + count].view(len(weights), rows, columns)
            offset += count
            buffer = self.momentum[rows, columns]
            buffer.lerp_(g_NRC, 1 - momentum)
            update_NRC = orthogonalise(g_NRC.lerp(buffer, momentum), self.dtype)  # Nesterov
            lr = self.matrix_lr * lr_scale * max(1.0, rows / columns) ** 0.5
            for weight, update in zip(weights, update_NRC, strict=True):
                weight.add_(update, alpha=-lr)

    def state(self) -> dict[str, Tensor]:
        """All state as flat tensors, for `checkpoint.save_checkpoint`."""
        tensors = {f"muon.{rows}x{columns}": buffer for (rows, columns), buffer in self.momentum.items()}
        for name, (weight, _) in self.adam_weights.items():
            for key, value in self.adamw.state[weight].items():
                tensors[f"adamw.{name}.{key}"] = value
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave. Raises KeyError for a model of other sizes."""
        for rows, columns in self.momentum:
            self.momentum[rows, columns].copy_(tensors[f"muon.{rows}x{columns}"])
        for name, (weight, _) in self.adam_weights.items():
            prefix = f"adamw.{name}."
            state: dict[str, Any] = {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }
            if state:  # absent before the first step
                self.adamw.state[weight] = {key: value.to(weight.device) for key, value in state.items()}
