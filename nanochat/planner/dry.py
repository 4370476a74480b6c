"""A dry run: from config values to everything a plan says, problems included. Torch-free.

`nanochat plan` and `POST /plans` both answer with it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nanochat.configurator import ConfigError, nearest_name, parse
from nanochat.hardware import GPUS, Gpu, find_gpu
from nanochat.planner.fit import fit
from nanochat.planner.host import vocabulary
from nanochat.planner.plan import plan_base
from nanochat.stages import STAGES, Problem
from nanochat.stages.base import BaseConfig

PLANNED = "base"
ASSUMED_GPU = "RTX 5090"  # where GPUs are asked for, none is named and none is here
GIB = 1 << 30


class NotPlanned(ValueError):
    """A stage the planner does not know."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"stage {stage!r} is not planned so far, only {PLANNED!r} is")


@dataclass(frozen=True)
class DryRun:
    """`values`: the fields of the wire's Plan; empty when a field of the config is wrong by itself."""

    values: dict[str, Any]
    problems: list[Problem]


def dry_run(
    stage: str, values: Mapping[str, Any], *, gpus: int, gpu: Gpu | None, base: Path, target_gb: float | None
) -> DryRun:
    """Plan `stage` with the config `values` on so many GPUs of a kind; 0: on the CPU.

    `base`: where its tokenizer would be found. Raises NotPlanned.
    """
    if stage != PLANNED:
        raise NotPlanned(stage)
    try:
        cfg = parse(STAGES[stage], values)
    except ConfigError as error:
        return DryRun({}, error.problems)
    assert isinstance(cfg, BaseConfig)
    ranks = gpus or cfg.processes
    problems = cfg.problems(ranks)
    notes: tuple[str, ...] = ()
    if gpus and gpu is None:
        gpu = find_gpu(ASSUMED_GPU)
        notes = (f"no GPU is known here, so this is for {ASSUMED_GPU}; say which with gpu",)
    elif gpus == 0:
        gpu = None
    vocab_size = vocabulary(cfg, base)
    budget = int(target_gb * GIB) if target_gb is not None else None
    plan = plan_base(cfg, vocab_size=vocab_size, ranks=ranks, gpu=gpu, budget_bytes=budget)
    plan = replace(plan, notes=notes + plan.notes)
    found: dict[str, Any] = {
        **asdict(plan),
        "parameters": plan.params,
        "memory": plan.memory.to_dict(),
        "config": cfg.model_dump(mode="json"),
        "argv": argv(stage, cfg, ranks),
        "gpus": gpus,
        "fit": None,
    }
    del found["params"], found["device_batch_size"]
    if plan.budget_bytes is not None:
        fitting = fit(cfg, vocab_size=vocab_size, ranks=ranks, gpu=gpu, budget_bytes=plan.budget_bytes)
        found["fit"] = asdict(fitting)
    return DryRun(found, problems)


def argv(stage: str, cfg: BaseConfig, ranks: int) -> list[str]:
    """The command that does the same without the service: what differs from the defaults, as flags."""
    chosen = cfg.model_dump(mode="json", exclude_defaults=True)
    launcher = ["torchrun", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
    flags = [f"--{key}={value}" for key, value in chosen.items()]
    return [*(launcher or [Path(sys.executable).name, "-m"]), STAGES[stage].script, *flags]


def named_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises ConfigError with the nearest known one."""
    found = find_gpu(name)
    if found is None:
        nearest = nearest_name(name, [gpu.name for gpu in GPUS])
        hint = f"the nearest is {nearest!r}" if nearest else f"there are {', '.join(g.name for g in GPUS)}"
        raise ConfigError([Problem("/gpu", f"there is no GPU {name!r} in the table; {hint}", nearest)])
    return found
