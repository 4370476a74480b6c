"""Tasks `rg:<generator>`: endless problems of the package reasoning-gym, judged by its own verifiers.

    rg:chain_sum    rg:spell_backward:min_word_len=3:max_word_len=5

Not covered: generators that make few different problems; the held-out ones are left out of training, so
at least as many others must exist.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nanochat.configurator import ConfigError, nearest_name
from nanochat.errors import DataError
from nanochat.stages import Problem as ConfigProblem
from nanochat.tasks.task import Conversation, Problem, dialogue

PREFIX = "rg:"
HELD_OUT = 256
ENDLESS = 1 << 40
TRIES = 1000  # draws for one that is not held out
INSTALL = "pip install reasoning-gym"


@dataclass(frozen=True)
class Generated(Problem):
    """A problem with what its verifier needs."""

    entry: dict[str, Any] = field(default_factory=dict, compare=False)


class Reasoning:
    """Held out: the first problems of another seed; training never draws their questions."""

    share = 1.0

    def __init__(self, name: str, train: Any, test: Any) -> None:
        self.name, self._train = name, train
        found = (_problem(test[index]) for index in range(HELD_OUT))
        self._held_out = {problem.question: problem for problem in found}
        self._verify = train.score_answer

    def practice(self, rng: random.Random) -> Problem:
        for _ in range(TRIES):
            problem = _problem(self._train[rng.randrange(ENDLESS)])
            if problem.question not in self._held_out:
                return problem
        raise DataError(f"{self.name} makes no other problems than the held-out ones: widen its options")

    def conversation(self, rng: random.Random) -> Conversation:
        problem = self.practice(rng)
        return dialogue(problem.question, problem.answer)

    def problems(self) -> Iterator[Problem]:
        return iter(self._held_out.values())

    def reward(self, problem: Problem, text: str) -> float:
        assert isinstance(problem, Generated)
        return float(self._verify(text.strip(), problem.entry))

    def is_right(self, problem: Problem, text: str) -> bool:
        return self.reward(problem, text) >= 1.0


def _problem(entry: dict[str, Any]) -> Generated:
    return Generated(entry["question"], entry["answer"], entry["answer"], entry)


@cache
def find(name: str) -> Reasoning:
    """The task `rg:<generator>[:<option>=<number>…]`. Raises ConfigError; DataError without the package."""
    generator, *options = name.removeprefix(PREFIX).split(":")
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise DataError(f"task {name} needs the package reasoning-gym: {INSTALL}") from None
    if generator not in DATASETS:
        nearest = nearest_name(generator, DATASETS)
        hint = f"the nearest is {PREFIX + nearest!r}" if nearest else f"it has {len(DATASETS)} others"
        raise _wrong(f"reasoning-gym has no generator {generator!r}; {hint}", nearest and PREFIX + nearest)
    values = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise _wrong(f"{name}: an option is written <name>=<value>, not {option!r}")
        values[key] = _value(value)
    try:
        train = create_dataset(generator, seed=1, size=ENDLESS, **values)
        test = create_dataset(generator, seed=2, size=HELD_OUT, **values)
    except (TypeError, ValueError, AssertionError) as error:
        raise _wrong(f"{name}: {error}") from None
    return Reasoning(name, train, test)


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _wrong(message: str, nearest: str | None = None) -> ConfigError:
    return ConfigError([ConfigProblem("/tasks", message, nearest)])
