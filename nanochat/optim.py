"""Muon for the matrices, AdamW for the rest; state and work are shared by the ranks.

Matrices of one shape lie in one stack, so that Newton-Schulz runs batched; every rank owns a part of each
stack and of each table: it alone keeps their state and updates them, then all ranks get the result
(ZeRO-2, Rajbhandari et al. 2020). Stacks are padded to a multiple of the ranks. Checkpoints hold the
whole state, so another number of ranks can go on from one.
Not covered: sharded weights, tensor parallelism.

# Shapes: N matrices of one shape, R rows, C columns; V rows and D columns of a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nanochat.gpt import GPT

NS_STEPS = 5
#: quintic Newton-Schulz coefficients of Muon (Jordan et al. 2024), the same in every step
NS_COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * NS_STEPS
#: the best quintic for every step after the ones before it (Polar Express, Amsel et al. 2025, l = 10⁻³)
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
POLAR_MARGIN = 1.02  # rounding must not push a singular value beyond what the polynomials are made for
NORMUON_BETA = 0.95
SMALL = "small"  # the segment of all scalars and gates
SMALL_LR = 0.02


@dataclass(frozen=True)
class Recipe:
    """What goes beyond plain Muon; see the fields of the same names in nanochat/stages/base.py."""

    polar_express: bool = False
    normuon: bool = False
    matrix_weight_decay: float = 0.0
    lr_factor: float = 1.0  # on every learning rate


PLAIN = Recipe()


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) on one tensor, by the fused kernel that torch.optim.AdamW has as well.

    torch.optim imports torch._dynamo at its first step: 1 s of CPU and 75 MB in every rank at every start,
    for runs that compile nothing.
    """

    BETAS = (0.8, 0.95)

    def __init__(self, weights: Tensor, grads: Tensor, lr: float, weight_decay: float, eps: float) -> None:
        self._weights, self._grads = weights, grads
        self.lr, self.weight_decay, self.eps = lr, weight_decay, eps
        self.state: dict[str, Tensor] = {}
        """As torch.optim names it; checkpoints hold it so. Empty before the first step."""

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """One update at `lr` times `lr_scale`."""
        state = self.state or self.fresh()
        state["step"] += 1
        torch._fused_adamw_(
            [self._weights], [self._grads], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
            lr=self.lr * lr_scale, beta1=self.BETAS[0], beta2=self.BETAS[1],
            weight_decay=self.weight_decay, eps=self.eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    def fresh(self) -> dict[str, Tensor]:
        """The state of a tensor that was never updated."""
        self.state = {
            "step": torch.zeros((), dtype=torch.float32, device=self._weights.device),
            "exp_avg": torch.zeros_like(self._weights),
            "exp_avg_sq": torch.zeros_like(self._weights),
        }
        return self.state


def orthogonalise(g_NRC: Tensor, dtype: torch.dtype = torch.bfloat16, polar_express: bool = False) -> Tensor:
    """The nearest semi-orthogonal matrix to each of N stacked R×C matrices, roughly.

    Five Newton-Schulz steps drive all singular values to about 1. The result has type `dtype`.
    """
    x = g_NRC.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * (POLAR_MARGIN if polar_express else 1) + 1e-7)
    for a, b, c in POLAR_EXPRESS if polar_express else NS_COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def equalise(update_NRC: Tensor, square_N: Tensor) -> Tensor:
    """NorMuon (Li et al. 2025): every line along the longer dimension gets the same size in the long run.

    `square_N`: moving averages of the lines' mean squares, (N, R, 1) or (N, 1, C), updated here. The size
    of the whole update stays.
    """
    update = update_NRC.float()
    line = -1 if square_N.size(-1) == 1 else -2
    square_N.lerp_(update.square().mean(line, keepdim=True), 1 - NORMUON_BETA)
    equal = update / square_N.sqrt().clamp_min(1e-8)
    sizes = [x.norm(dim=(-2, -1), keepdim=True) for x in (update, equal)]
    return equal * (sizes[0] / sizes[1].clamp_min(1e-8))


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
    rows: int
    """Rows that are no padding."""

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
        recipe: Recipe = PLAIN,
    ) -> None:
        self.matrix_lr, self.ns_dtype, self.recipe = matrix_lr * recipe.lr_factor, ns_dtype, recipe
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        for weight in model.matrices().values():
            shapes.setdefault((weight.size(0), weight.size(1)), []).append(weight)
        tables, small = _tables(model), _small(model)
        sizes = [math.prod(shape) * self._padded(len(weights)) for shape, weights in shapes.items()]
        sizes += [self._padded(table.size(0)) * table.size(1) for table in tables.values()]
        sizes += [self._padded(sum(weight.numel() for weight in small))]
        device = model.lm_head.weight.device
        self.weights, self.grads = (torch.zeros(sum(sizes), device=device) for _ in range(2))
        pieces = zip(torch.split(self.weights, sizes), torch.split(self.grads, sizes), strict=True)
        self.stacks = [
            self._adopt(
                f"{R}x{C}", weights, range(len(weights)), *(piece.view(-1, R, C) for piece in next(pieces))
            )
            for (R, C), weights in shapes.items()
        ]
        self.tables = [
            self._adopt(
                name,
                [table],
                [slice(table.size(0))],
                *(piece.view(-1, table.size(1)) for piece in next(pieces)),
            )
            for name, table in tables.items()
        ]
        if small:
            ends = list(accumulate(weight.numel() for weight in small))
            places = [slice(end - weight.numel(), end) for weight, end in zip(small, ends, strict=True)]
            self.tables.append(self._adopt(SMALL, small, places, *next(pieces)))
        self.momentum = {stack.name: torch.zeros_like(stack.weights[stack.own]) for stack in self.stacks}
        self.squares = {name: _lines(own) for name, own in self.momentum.items() if recipe.normuon}
        scale = (model.cfg.n_embd / 768) ** -0.5
        rates = {"lm_head": unembedding_lr * scale, SMALL: SMALL_LR}
        self.adamw = {}
        for table in self.tables:
            name = table.name
            lr = rates.get(name, embedding_lr * scale) * recipe.lr_factor
            decay = weight_decay if name in ("wte", "lm_head") else 0.0
            # scaling a block's input changes nothing at first: Adam must not blow rounding up to a direction
            eps = 1e-6 if name == SMALL else 1e-10
            self.adamw[name] = AdamW(table.weights[table.own], table.grads[table.own], lr, decay, eps)
        self._rank_in_model = {parameter: n for n, parameter in enumerate(model.parameters())}
        self._order: list[tuple[Segment, int | None]] = []
        self._pending: list[Any] | None = None
        self._complete: set[int] = set()

    def _padded(self, rows: int) -> int:
        return -(-rows // self.size) * self.size

    @torch.no_grad()
    def _adopt(
        self,
        name: str,
        parameters: list[nn.Parameter],
        places: Iterable[int | slice],
        weights: Tensor,
        grads: Tensor,
    ) -> Segment:
        """Move the parameters to their `places` in `weights` and give them gradients in `grads`."""
        rows = 0
        for parameter, place in zip(parameters, places, strict=True):
            weights[place].view_as(parameter).copy_(parameter)
            parameter.data = weights[place].view_as(parameter)
            parameter.grad = grads[place].view_as(parameter)
            rows = place.stop if isinstance(place, slice) else place + 1
        return Segment(name, parameters, weights, grads, self.rank, self.size, rows)

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
            head, rest = self._in_order_of_completion()
            self._order = [(head, None), *[(segment, row) for segment, row, _ in rest]]
            for turn, (_, _, parameter) in enumerate(rest, 1):
                if parameter is not None:
                    _after_gradient(parameter, partial(self._completed, turn))
        self._pending, self._complete = [], {0}
        self._send()

    def _in_order_of_completion(
        self,
    ) -> tuple[Segment, list[tuple[Segment, int | None, nn.Parameter | None]]]:
        """The head, then (segment, its row or all, whose gradient completes it), last layer first.

        The small parameters come last: `reduce` sends them.
        """
        by_name = {table.name: table for table in self.tables}
        head, small = by_name.pop("lm_head"), by_name.pop(SMALL, None)
        parts: list[tuple[Segment, int | None, nn.Parameter | None]] = [
            (stack, row, parameter) for stack in self.stacks for row, parameter in enumerate(stack.parameters)
        ]
        parts += [(table, None, table.parameters[0]) for table in by_name.values()]
        parts.sort(key=lambda part: self._rank_in_model[part[2]] if part[2] is not None else 0, reverse=True)
        return head, [*parts, *([(small, None, None)] if small else [])]

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
    def step(self, lr_scale: float, momentum: float, decay_scale: float = 1.0) -> None:
        """Update every weight from its reduced gradient. `decay_scale`: on the matrices' weight decay."""
        for adamw in self.adamw.values():
            adamw.step(lr_scale)
        sent = [self._share(table) for table in self.tables]
        for stack in self.stacks:
            buffer, g_NRC = self.momentum[stack.name], stack.grads[stack.own]
            buffer.lerp_(g_NRC, 1 - momentum)
            nesterov_NRC = g_NRC.lerp(buffer, momentum)
            update_NRC = orthogonalise(nesterov_NRC, self.ns_dtype, self.recipe.polar_express)
            if self.recipe.normuon:
                update_NRC = equalise(update_NRC, self.squares[stack.name])
            rows, columns = update_NRC.shape[1:]
            lr = self.matrix_lr * lr_scale * max(1.0, rows / columns) ** 0.5
            own = stack.weights[stack.own]
            if decay := lr * self.recipe.matrix_weight_decay * decay_scale:
                own.sub_((own * (own * update_NRC > 0)), alpha=decay)  # cautious (Chen et al. 2025)
            own.add_(update_NRC, alpha=-lr)
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
            f"muon.{stack.name}": self._whole(self.momentum[stack.name], stack.rows) for stack in self.stacks
        }
        for stack in self.stacks:
            if self.recipe.normuon:
                tensors[f"normuon.{stack.name}"] = self._whole(self.squares[stack.name], stack.rows)
        for table in self.tables:
            for key, value in self.adamw[table.name].state.items():
                whole = self._whole(value, table.rows) if value.dim() else value
                tensors[f"adamw.{table.name}.{key}"] = whole
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over this rank's part of what `state` gave. Raises KeyError for a model of other sizes."""
        for stack in self.stacks:
            self._part(tensors[f"muon.{stack.name}"], stack, self.momentum[stack.name])
            if self.recipe.normuon and f"normuon.{stack.name}" in tensors:  # else it was off before
                self._part(tensors[f"normuon.{stack.name}"], stack, self.squares[stack.name])
        for table in self.tables:
            prefix = f"adamw.{table.name}."
            if f"{prefix}step" not in tensors:
                continue  # saved before the first step
            for key, own in self.adamw[table.name].fresh().items():
                value = tensors[prefix + key]
                if value.dim():
                    self._part(value, table, own)
                else:
                    own.copy_(value)

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


def _lines(stack_NRC: Tensor) -> Tensor:
    """Zeros, one for each line along the longer dimension: (N, R, 1) or (N, 1, C)."""
    N, R, C = stack_NRC.shape
    return stack_NRC.new_zeros((N, R, 1) if R >= C else (N, 1, C))


def _tables(model: GPT) -> dict[str, nn.Parameter]:
    """Embedding, head and value embeddings, by the name their state is saved under."""
    tables = {
        "wte": model.get_parameter("transformer.wte.weight"),
        "lm_head": model.get_parameter("lm_head.weight"),
    }
    for name, weight in model.named_parameters():
        if name.endswith(".ve.weight"):
            tables[f"ve{name.split('.')[2]}"] = weight
    return tables


def _small(model: GPT) -> list[nn.Parameter]:
    """What is neither a matrix nor a table: scalars and gates."""
    other = {id(weight) for weight in (*model.matrices().values(), *_tables(model).values())}
    return [weight for weight in model.parameters() if id(weight) not in other]


def _after_gradient(parameter: nn.Parameter, call: Callable[[Tensor], None]) -> None:
    parameter.register_post_accumulate_grad_hook(call)  # type: ignore[no-untyped-call]
