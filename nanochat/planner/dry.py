"""A dry run: from config values to everything a plan says, problems included. Torch-free.

`nanochat plan` and `POST /plans` both answer with it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.configurator import ConfigError, nearest_name, parse
from nanochat.hardware import GPUS, Gpu, find_gpu
from nanochat.planner.evaluating import Evaluation, plan_evaluation, plan_host
from nanochat.planner.fit import Fit, fit, fit_tuning
from nanochat.planner.host import vocabulary
from nanochat.planner.plan import Plan, budget_of, plan_base
from nanochat.planner.shape import model_config_at, shape_of
from nanochat.planner.tuning import Tuned, plan_tuning, row_tokens, steps_of
from nanochat.stages import STAGES, Problem, Stage, StageConfig
from nanochat.stages.base import BaseConfig
from nanochat.stages.mid import MidConfig

ASSUMED_GPU = "RTX 5090"  # where GPUs are asked for, none is named and none is here
GIB = 1 << 30


@dataclass(frozen=True)
class DryRun:
    """`values`: the fields of the wire's Plan; empty when a field of the config is wrong by itself."""

    values: dict[str, Any]
    problems: list[Problem]


@dataclass(frozen=True)
class Where:
    """What a run is planned for: ranks on cards of one kind, or on the CPU; a limit of memory; its files."""

    ranks: int
    gpu: Gpu | None
    budget_bytes: int | None
    base: Path


def dry_run(
    stage: str,
    values: Mapping[str, Any],
    *,
    gpus: int,
    gpu: Gpu | None,
    base: Path,
    target_gb: float | None,
    model: Mapping[str, Any] | None = None,
) -> DryRun:
    """Plan `stage` with the config `values` on so many GPUs of a kind; 0: on the CPU.

    `base`: where its tokenizer and its checkpoint would be found. `model`: what the checkpoint that it starts
    from says of its model, when the caller knows better.
    """
    row = STAGES[stage]
    try:
        cfg = parse(row, values)
    except ConfigError as error:
        return DryRun({}, error.problems)
    ranks = (gpus or cfg.processes) if row.distributed else 1
    notes: tuple[str, ...] = ()
    if gpus and gpu is None:
        gpu = find_gpu(ASSUMED_GPU)
        notes = (f"no GPU is known here, so this is for {ASSUMED_GPU}; say which with gpu",)
    elif gpus == 0:
        gpu = None
    where = Where(ranks, gpu, int(target_gb * GIB) if target_gb is not None else None, base)
    plan, fitting, problems = _planned(row, cfg, where, model)
    found: dict[str, Any] = {
        **asdict(plan),
        "notes": [*notes, *plan.notes],
        "parameters": plan.params,
        "memory": plan.memory and plan.memory.to_dict(),
        "config": cfg.model_dump(mode="json"),
        "argv": argv(row, cfg, ranks),
        "gpus": gpus,
        "fit": fitting and asdict(fitting),
    }
    del found["params"], found["device_batch_size"]
    return DryRun(found, problems)


def _planned(
    row: Stage, cfg: StageConfig, where: Where, model: Mapping[str, Any] | None
) -> tuple[Plan, Fit | None, list[Problem]]:
    ranks, gpu = where.ranks, where.gpu
    problems = cfg.problems(ranks)
    if isinstance(cfg, BaseConfig):
        vocab_size = vocabulary(cfg, where.base)
        plan = plan_base(cfg, vocab_size=vocab_size, ranks=ranks, gpu=gpu, budget_bytes=where.budget_bytes)
        if plan.budget_bytes is None:
            return plan, None, problems
        best = fit(cfg, vocab_size=vocab_size, ranks=ranks, gpu=gpu, budget_bytes=plan.budget_bytes)
        return plan, best, problems
    if not row.uses_gpu:
        return plan_host(getattr(cfg, "vocab_size", None)), None, problems
    try:
        shape = shape_of(model if model is not None else _found(row, cfg, where.base))
    except ValueError as error:
        note = f"{error}, so parameters and memory are not planned"
        budget = budget_of(where.budget_bytes, gpu)
        steps = steps_of(cfg) if isinstance(cfg, Tuned) else None
        device = gpu.name if gpu else "CPU"
        plan = Plan(ranks=ranks, device=device, notes=(note,), steps=steps, budget_bytes=budget)
        return plan, None, problems
    if isinstance(cfg, Evaluation):
        plan = plan_evaluation(cfg, shape, ranks=ranks, gpu=gpu, budget_bytes=where.budget_bytes)
        return plan, None, problems
    assert isinstance(cfg, Tuned)
    if isinstance(cfg, MidConfig):
        problems = cfg.batch_problems(ranks, row_tokens(cfg, shape))
    plan = plan_tuning(cfg, shape, ranks=ranks, gpu=gpu, budget_bytes=where.budget_bytes)
    if plan.budget_bytes is None:
        return plan, None, problems
    return plan, fit_tuning(cfg, shape, ranks=ranks, gpu=gpu, budget_bytes=plan.budget_bytes), problems


def _found(row: Stage, cfg: StageConfig, base: Path) -> Mapping[str, Any]:
    """What the checkpoint that the config names, else the newest, says of its model. Raises ValueError."""
    item = row.inputs[0]
    name = str(getattr(cfg, item.field))
    found = model_config_at(name, item.stages, base)
    if found is None:
        makers = " or ".join(item.stages)
        raise ValueError(
            f"the checkpoint {name!r} cannot be read here"
            if name
            else f"there is no {item.field} yet (a run of {makers} makes one)"
        )
    return found


def argv(row: Stage, cfg: StageConfig, ranks: int) -> list[str]:
    """The command that does the same without the service: what differs from the defaults, as flags."""
    chosen = cfg.model_dump(mode="json", exclude_defaults=True)
    launcher = ["torchrun", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
    flags = [f"--{key}={value}" for key, value in chosen.items()]
    return [*(launcher or [Path(sys.executable).name, "-m"]), row.script, *flags]


def named_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises ConfigError with the nearest known one."""
    found = find_gpu(name)
    if found is None:
        nearest = nearest_name(name, [gpu.name for gpu in GPUS])
        hint = f"the nearest is {nearest!r}" if nearest else f"there are {', '.join(g.name for g in GPUS)}"
        raise ConfigError([Problem("/gpu", f"there is no GPU {name!r} in the table; {hint}", nearest)])
    return found
