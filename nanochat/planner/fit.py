"""The other way round: which batch fits into so much memory, and what suits a host. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.hardware import Gpu
from nanochat.planner import tuning
from nanochat.planner.memory import peak_memory
from nanochat.planner.plan import plan_base, setting_of
from nanochat.planner.shape import Shape
from nanochat.planner.tuning import Tuned
from nanochat.schedule import batch_tokens, default_vocab_size
from nanochat.stages.base import BaseConfig, head_problems
from nanochat.stages.mid import MidConfig
from nanochat.stages.rl import RlConfig
from nanochat.stages.training import nearest_multiple

RESERVE = 0.92  # of a card's memory: the desktop, other processes, what the estimate misses
LONGEST_H = 24.0
DEPTHS = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)
SEQ_LEN = 2048
ON_CPU: dict[str, Any] = {
    "depth": 4, "max_seq_len": 512, "device_batch_size": 4, "total_batch_size": 8192, "num_iterations": 600,
    "eval_every": 200, "eval_tokens": 65536, "sample_every": 200, "core_metric_every": 0, "save_every": 100,
    "device": "cpu",
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """The largest micro-batch that fits, and the memory it takes.

    `device_batch_size` None: not even one row fits, and `total_bytes` is what one row would take.
    """

    device_batch_size: int | None
    activation_checkpoint: bool
    total_batch_size: int | None
    """Tokens of a step; None where conversations or answers are counted."""
    total_bytes: int
    lanes: int | None = None
    """rl: the most answers at once, up to as many as were asked for."""


def fit(cfg: BaseConfig, *, vocab_size: int, ranks: int, gpu: Gpu | None, budget_bytes: int) -> Fit:
    """Largest `device_batch_size` within `budget_bytes`, the global batch unchanged.

    A global batch of no whole rows becomes the nearest one that has. Activations are recomputed only when
    not even one row fits otherwise, or when `cfg` asks for it.
    """
    unit = cfg.max_seq_len * ranks
    total = nearest_multiple(cfg.step_tokens(ranks), unit)
    limit = min(total // unit, 4096)
    sizes = [size for size in range(1, limit + 1) if (total // unit) % size == 0]

    def needed(size: int, recompute: bool) -> int:
        changed = cfg.model_copy(update={"device_batch_size": size, "activation_checkpoint": recompute})
        return peak_memory(setting_of(changed, vocab_size, ranks, gpu)).total

    for recompute in (True,) if cfg.activation_checkpoint else (False, True):
        fitting = [size for size in sizes if needed(size, recompute) <= budget_bytes]
        if fitting:
            return Fit(fitting[-1], recompute, total, needed(fitting[-1], recompute))
    return Fit(None, True, total, needed(1, True))


def fit_tuning(cfg: Tuned, shape: Shape, *, ranks: int, gpu: Gpu | None, budget_bytes: int) -> Fit:
    """The same for mid, sft and rl: rows, conversations or answers of a step stay as many as they are.

    rl: first as many lanes as fit, halved like the trainer does, then the micro-batch.
    """

    def needed(**changed: int) -> int:
        there = cfg.model_copy(update=changed)
        return tuning.needed(there, shape, tuning.setting_of(there, shape, ranks, gpu))[0].total

    lanes: int | None = None
    if isinstance(cfg, RlConfig):
        answers = max(1, cfg.examples_per_step // ranks) * cfg.num_samples
        sizes = [1 << power for power in range(min(answers, 4096).bit_length())]
        lanes = cfg.lanes
        while lanes > 1 and needed(lanes=lanes, device_batch_size=1) > budget_bytes:
            lanes //= 2
        cfg = cfg.model_copy(update={"lanes": lanes})
    else:
        rows = max(1, tuning.rows_of_step(cfg, tuning.row_tokens(cfg, shape)) // ranks)
        sizes = [size for size in range(1, min(rows, 4096) + 1) if rows % size == 0]
    total = cfg.total_batch_size or None if isinstance(cfg, MidConfig) else None
    fitting = [size for size in sizes if needed(device_batch_size=size) <= budget_bytes]
    if not fitting:
        return Fit(None, False, total, needed(device_batch_size=1), lanes)
    return Fit(fitting[-1], False, total, needed(device_batch_size=fitting[-1]), lanes)


def automatic(gpus: Sequence[Gpu]) -> dict[str, Any]:
    """Config values for a host: the deepest model that fits its smallest card and is trained in a day.

    Without a GPU a small model for a quarter of an hour on two cores.
    """
    if not gpus:
        return dict(ON_CPU)
    gpu = min(gpus, key=lambda one: (one.memory_bytes, one.bf16_flops))
    best: dict[str, Any] | None = None
    for depth in (depth for depth in DEPTHS if not head_problems(depth)):
        values = _values(depth, gpu, len(gpus))
        if values is None:
            break
        plan = plan_base(BaseConfig(**values), vocab_size=default_vocab_size(depth), ranks=len(gpus), gpu=gpu)
        if best is not None and (plan.seconds or 0) > LONGEST_H * 3600:
            break
        best = values
    return best or dict(ON_CPU)


def _values(depth: int, gpu: Gpu, ranks: int) -> dict[str, Any] | None:
    """A config of that depth that fits; None when none does."""
    values: dict[str, Any] = {
        "depth": depth, "max_seq_len": SEQ_LEN, "device_batch_size": 1,
        "total_batch_size": batch_tokens(depth, SEQ_LEN * ranks),
        "save_every": 1000, "eval_every": 250, "sample_every": 1000, "core_metric_every": 0,
    }  # fmt: skip
    found = fit(
        BaseConfig(**values), vocab_size=default_vocab_size(depth), ranks=ranks, gpu=gpu,
        budget_bytes=int(gpu.memory_bytes * RESERVE),
    )  # fmt: skip
    if found.device_batch_size is None:
        return None
    changed = {
        "device_batch_size": found.device_batch_size, "activation_checkpoint": found.activation_checkpoint
    }  # fmt: skip
    return values | changed
