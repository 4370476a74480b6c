"""Muon for the matrices, AdamW for the embedding and the head; state and work are shared by the ranks.

Matrices of one shape lie in one stack, so that Newton-Schulz runs batched; every rank owns a part of each
stack and of the two tables: it alone keeps their state and updates them, then all ranks get the result
(ZeRO-2, Rajbhandari et al. 2020). Stacks are padded to a multiple of the ranks. Checkpoints hold the
whole state, so another number of ranks can go on from one.
Not covered: sharded weights, tensor parallelism.

# Shapes: N matrices of one shape, R rows, C columns; V rows and D columns of a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nanochat.gpt import GPT

#: quintic Newton-Schulz coefficients of Muon (Jordan et al. 2024)
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5


def orthogonalise(g_NRC: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest semi-orthogonal matrix to each of N stacked R×C matrices, roughly.

    Five Newton-Schulz steps drive all singular values to about 1. The result has type `dtype`.
    """
    a, b, c = NS_COEFFICIENTS
    x = g_NRC.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NS_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@dataclass
class Segment:
    """Some parameters as one block of memory whose first dimension is dealt to the ranks.

    `weights` and `grads` are (rows, …); the model's parameters and their gradients are views of them.
    """

    name: str
    parameters: list[nn.Parameter]
    weights: Tensor
    grads: Tensor
    rank: int
    size: int

    @property
    def own(self) -> slice:
        """The rows of this rank."""
        part = self.weights.size(0) // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def owner(self, row: int) -> int:
        return row // (self.weights.size(0) // self.size)


class Optimizer:
    """One step for a whole GPT. Learning rates are given at full height; `step` scales them.

    Use: `zero()`, backward passes, `reduce()`, `clip(…)`, `step(…)`. Before the backward pass that
    completes the gradients, `overlap()` may be called: then they are reduced while it still runs.
    `reduce`, `overlap`, `step` and `state` are collective.
    """

    def __init__(
        self,
        model: GPT,
        *,
        matrix_lr: float,
        embedding_lr: float,
        unembedding_lr: float,
        weight_decay: float,
        ns_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.matrix_lr, self.ns_dtype = matrix_lr, ns_dtype
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        for name, weight in model.named_parameters():
            if name.startswith("transformer.h."):
                shapes.setdefault((weight.size(0), weight.size(1)), []).append(weight)
        wte, head = model.get_parameter("transformer.wte.weight"), model.get_parameter("lm_head.weight")
        sizes = [math.prod(shape) * self._padded(len(weights)) for shape, weights in shapes.items()]
        sizes += [self._padded(table.size(0)) * table.size(1) for table in (wte, head)]
        self.weights, self.grads = (torch.zeros(sum(sizes), device=wte.device) for _ in range(2))
        pieces = list(zip(torch.split(self.weights, sizes), torch.split(self.grads, sizes), strict=True))
        self.stacks = [
            self._adopt(f"{R}x{C}", weights, weight.view(-1, R, C), grad.view(-1, R, C))
            for ((R, C), weights), (weight, grad) in zip(shapes.items(), pieces[:-2], strict=True)
        ]
        self.tables = [
            self._adopt(name, [table], weight.view(-1, table.size(1)), grad.view(-1, table.size(1)))
            for name, table, (weight, grad) in zip(("wte", "lm_head"), (wte, head), pieces[-2:], strict=True)
        ]
        self.momentum = {stack.name: torch.zeros_like(stack.weights[stack.own]) for stack in self.stacks}
        scale = (model.cfg.n_embd / 768) ** -0.5
        self._own_tables = {table.name: nn.Parameter(table.weights[table.own]) for table in self.tables}
        for table in self.tables:
            self._own_tables[table.name].grad = table.grads[table.own]
        rates = {"wte": embedding_lr * scale, "lm_head": unembedding_lr * scale}
        self.adamw = torch.optim.AdamW(
            [{"params": [self._own_tables[name]], "lr": lr, "full_lr": lr} for name, lr in rates.items()],
            betas=(0.8, 0.95),
            eps=1e-10,
            weight_decay=weight_decay,
            fused=True,
        )
        self._rank_in_model = {parameter: n for n, parameter in enumerate(model.parameters())}
        self._order: list[tuple[Segment, int | None]] = []
        self._pending: list[Any] | None = None
        self._complete: set[int] = set()

    def _padded(self, rows: int) -> int:
        return -(-rows // self.size) * self.size

    @torch.no_grad()
    def _adopt(self, name: str, parameters: list[nn.Parameter], weights: Tensor, grads: Tensor) -> Segment:
        """Move the parameters into `weights` and give them gradients in `grads`."""
        stacked = weights.dim() == 3
        for row, parameter in enumerate(parameters):
            place = row if stacked else slice(parameter.size(0))
            weights[place] = parameter
            parameter.data, parameter.grad = weights[place], grads[place]
        return Segment(name, parameters, weights, grads, self.rank, self.size)

    # ------------------------------------------------------------ gradients

    def zero(self) -> None:
        """Forget all gradients."""
        self.grads.zero_()

    def overlap(self) -> None:
        """Reduce each gradient as soon as the coming backward pass has completed it.

        The head's must be complete already (see `loss.head_loss`). All ranks send in one fixed order,
        last layer first, so a rank whose backward pass breaks off can still send the rest (`reduce`).
        """
        if self.size == 1:
            return
        if not self._order:
            wte, head = self.tables
            matrices = [
                (stack, row, parameter)
                for stack in self.stacks
                for row, parameter in enumerate(stack.parameters)
            ]
            matrices.sort(key=lambda one: self._rank_in_model[one[2]], reverse=True)
            self._order = [(head, None), *[(stack, row) for stack, row, _ in matrices], (wte, None)]
            for turn, (_, _, parameter) in enumerate(matrices, 1):
                _after_gradient(parameter, partial(self._completed, turn))
            _after_gradient(wte.parameters[0], partial(self._completed, len(self._order) - 1))
        self._pending, self._complete = [], {0}
        self._send()

    def _completed(self, turn: int, _: Tensor) -> None:
        if self._pending is not None:
            self._complete.add(turn)
            self._send()

    def _send(self, rest: bool = False) -> None:
        """Start the reductions whose turn has come; all that are left with `rest`."""
        assert self._pending is not None
        while len(self._pending) < len(self._order) and (rest or len(self._pending) in self._complete):
            segment, row = self._order[len(self._pending)]
            if row is None:
                work = dist.all_reduce(segment.grads, async_op=True)
            else:
                work = dist.reduce(segment.grads[row], segment.owner(row), async_op=True)
            self._pending.append(work)

    def reduce(self) -> None:
        """Average the gradients over the ranks; afterwards each rank has those of its own part."""
        if self.size == 1:
            return
        if self._pending is None:
            dist.all_reduce(self.grads)
        else:
            self._send(rest=True)
            for work in self._pending:
                work.wait()
            self._pending = None
        for segment in (*self.stacks, *self.tables):
            segment.grads[segment.own] /= self.size

    def square_norm(self) -> Tensor:
        """This rank's part of the squared norm of the reduced gradient; the sum over ranks is all of it."""
        own = [segment.grads[segment.own] for segment in (*self.stacks, *self.tables)]
        norms: Tensor = torch.stack([part.norm() for part in own])
        return norms.square().sum()

    def clip(self, norm: float, limit: float) -> None:
        """Scale the gradient of global norm `norm` down to `limit` (0: no limit)."""
        if 0 < limit < norm:
            self.grads *= limit / (norm + 1e-6)

    # ------------------------------------------------------------ update

    @torch.no_grad()
    def step(self, lr_scale: float, momentum: float) -> None:
        """Update every weight from its reduced gradient."""
        for group in self.adamw.param_groups:
            group["lr"] = group["full_lr"] * lr_scale
        self.adamw.step()
        sent = [self._share(table) for table in self.tables]
        for stack in self.stacks:
            buffer, g_NRC = self.momentum[stack.name], stack.grads[stack.own]
            buffer.lerp_(g_NRC, 1 - momentum)
            update_NRC = orthogonalise(g_NRC.lerp(buffer, momentum), self.ns_dtype)  # Nesterov
            rows, columns = update_NRC.shape[1:]
            lr = self.matrix_lr * lr_scale * max(1.0, rows / columns) ** 0.5
            stack.weights[stack.own].add_(update_NRC, alpha=-lr)
            sent.append(self._share(stack))
        for work in sent:
            if work is not None:
                work.wait()

    def _share(self, segment: Segment) -> dist.Work | None:
        """Send this rank's part to all others and fetch theirs."""
        if self.size == 1:
            return None
        own = segment.weights[segment.own].clone()
        return dist.all_gather_single(segment.weights, own, async_op=True)

    # ------------------------------------------------------------ state

    def state(self) -> dict[str, Tensor]:
        """All state of all ranks as tensors, for `checkpoint.save_checkpoint`. Collective."""
        tensors = {
            f"muon.{stack.name}": self._whole(self.momentum[stack.name], len(stack.parameters))
            for stack in self.stacks
        }
        for table in self.tables:
            for key, value in self.adamw.state[self._own_tables[table.name]].items():
                whole = self._whole(value, table.parameters[0].size(0)) if value.dim() else value
                tensors[f"adamw.{table.name}.{key}"] = whole
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over this rank's part of what `state` gave. Raises KeyError for a model of other sizes."""
        for stack in self.stacks:
            self._part(tensors[f"muon.{stack.name}"], stack, self.momentum[stack.name])
        for table in self.tables:
            prefix = f"adamw.{table.name}."
            state: dict[str, Any] = {}
            for key, value in tensors.items():
                if not key.startswith(prefix):
                    continue
                if value.dim():
                    own = torch.zeros_like(self._own_tables[table.name])
                    self._part(value, table, own)
                else:
                    own = value.to(table.weights.device)
                state[key.removeprefix(prefix)] = own
            if state:  # absent before the first step
                self.adamw.state[self._own_tables[table.name]] = state

    def _whole(self, own: Tensor, rows: int) -> Tensor:
        if self.size == 1:
            return own[:rows]
        whole = own.new_empty((own.size(0) * self.size, *own.shape[1:]))
        dist.all_gather_single(whole, own.contiguous())
        return whole[:rows]

    @staticmethod
    def _part(whole: Tensor, segment: Segment, out: Tensor) -> None:
        mine = whole[segment.own]  # shorter than `out` where rows are padding
        out[: mine.size(0)].copy_(mine)


def _after_gradient(parameter: nn.Parameter, call: Callable[[Tensor], None]) -> None:
    parameter.register_post_accumulate_grad_hook(call)  # type: ignore[no-untyped-call]
