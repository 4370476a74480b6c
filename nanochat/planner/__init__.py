"""What a base run will need before it is started: memory, steps, hours, disk. Torch-free."""

from nanochat.planner.fit import Fit, automatic, fit
from nanochat.planner.memory import Memory, peak_memory
from nanochat.planner.plan import Plan, plan_base
from nanochat.planner.setting import Setting

__all__ = ["Fit", "Memory", "Plan", "Setting", "automatic", "fit", "peak_memory", "plan_base"]
