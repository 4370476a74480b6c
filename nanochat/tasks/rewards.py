"""Rewards for rl: numbers for an answer, mixed by weight. A new one is one function in REWARDS.

exact:1.0,format:0.2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nanochat.configurator import ConfigError, nearest_name
from nanochat.stages import Problem as ConfigProblem
from nanochat.tasks.task import Example, Task


@dataclass(frozen=True)
class Answer:
    """What the model said to a problem: `text` is what follows its last tool output."""

    task: Task
    problem: Example
    text: str
    ended: bool
    """It ended by itself, not by running out of tokens."""
    length: float
    """Tokens as a fraction of those allowed."""


Reward = Callable[[Answer], float]


def exact(answer: Answer) -> float:
    """What the task says: 1 for a right answer, 0 for a wrong one, or between."""
    return answer.task.reward(answer.problem, answer.text)


def ended(answer: Answer) -> float:
    """1 for an answer that says something and ends by itself."""
    return float(answer.ended and bool(answer.text.strip()))


def short(answer: Answer) -> float:
    """From 1 for nothing to 0 for all tokens that are allowed."""
    return 1.0 - min(1.0, answer.length)


REWARDS: Mapping[str, Reward] = {"exact": exact, "format": ended, "short": short}


def parse(text: str) -> dict[str, float]:
    """Weights by name of `name[:weight],…`; without one it is 1. Raises ConfigError."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, weight = part.partition(":")
        if name not in REWARDS:
            nearest = nearest_name(name, REWARDS)
            hint = f"the nearest is {nearest!r}" if nearest else f"there are {', '.join(REWARDS)}"
            raise _wrong(f"there is no reward {name!r}; {hint}", nearest)
        try:
            found[name] = float(weight) if colon else 1.0
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise _wrong(f"the weight of {name!r} is no number: {weight!r}")
    if not any(found.values()):
        raise _wrong("no reward has a weight: name one, e.g. exact:1.0")
    return found


def score(answer: Answer, weights: Mapping[str, float]) -> dict[str, float]:
    """Each reward of the answer, not weighted."""
    return {name: REWARDS[name](answer) for name in weights}


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that one of k of the samples is right: unbiased (Chen et al. 2021, equation 1)."""
    if not 0 < k <= samples:
        raise ValueError(f"k = {k} of {samples} samples")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _wrong(message: str, nearest: str | None = None) -> ConfigError:
    return ConfigError([ConfigProblem("/rewards", message, nearest)])
