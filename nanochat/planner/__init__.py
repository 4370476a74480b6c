"""What a run will need before it is started: memory, steps, hours, disk. Torch-free."""

from nanochat.planner.fit import Fit, automatic, fit, fit_tuning
from nanochat.planner.memory import Memory, peak_memory
from nanochat.planner.plan import Plan, plan_base
from nanochat.planner.setting import Setting
from nanochat.planner.shape import Shape, shape_of
from nanochat.planner.tuning import plan_tuning

__all__ = [
    "Fit", "Memory", "Plan", "Setting", "Shape", "automatic", "fit", "fit_tuning", "peak_memory",
    "plan_base", "plan_tuning", "shape_of",
]  # fmt: skip
