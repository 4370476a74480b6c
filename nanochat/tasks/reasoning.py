"""Tasks `rg:<generator>`: endless problems of the package reasoning-gym, judged by its own verifiers.

    rg:chain_sum    rg:spell_backward:min_word_len=3:max_word_len=5

Not covered: generators that make few different problems; the held-out ones are left out of training, so
at least as many others must exist.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nanochat.configurator import nearest_name
from nanochat.errors import DataError
from nanochat.tasks.task import Example, Generator, Split, wrong_option

HELD_OUT = 256
ENDLESS = 1 << 40
TRIES = 1000  # draws for one that is not held out
INSTALL = "pip install reasoning-gym"


@dataclass(frozen=True)
class Verified(Example):
    """An example with what its verifier needs."""

    entry: dict[str, Any] = field(default_factory=dict, compare=False)


class Reasoning(Generator):
    """Held out: the first problems of another seed; training never draws their questions."""

    name = "rg"
    title = "generators of reasoning-gym, rg:<generator>[:<option>=<value>…]"

    def __init__(self, split: Split, base: Path, options: str = "") -> None:
        self._train, self._test = _generators(options)
        super().__init__(split, base, options)
        self.name = f"rg:{options}"
        self._questions = {example.question for example in self.problems()}

    @classmethod
    def takes_options(cls) -> bool:
        return True

    def sample(self, rng: random.Random) -> Example:
        for _ in range(TRIES):
            example = _example(self._train[rng.randrange(ENDLESS)])
            if example.question not in self._questions:
                return example
        raise DataError(f"{self.name} makes no other problems than the held-out ones: widen its options")

    def problems(self) -> list[Example]:
        found = (_example(self._test[index]) for index in range(HELD_OUT))
        return list({example.question: example for example in found}.values())

    def reward(self, example: Example, text: str) -> float:
        assert isinstance(example, Verified)
        return float(self._train.score_answer(text.strip(), example.entry))

    def evaluate(self, example: Example, text: str) -> bool:
        return self.reward(example, text) >= 1.0


def _example(entry: dict[str, Any]) -> Verified:
    question, answer = entry["question"], entry["answer"]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Verified(messages, answer, "", entry)


@cache
def _generators(options: str) -> tuple[Any, Any]:
    """(training, held-out) data sets of `<generator>[:<option>=<value>…]`. Raises ConfigError, DataError."""
    name = f"rg:{options}"
    generator, *settings = options.split(":")
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise DataError(f"task {name} needs the package reasoning-gym: {INSTALL}") from None
    if generator not in DATASETS:
        nearest = nearest_name(generator, DATASETS)
        hint = f"the nearest is {'rg:' + nearest!r}" if nearest else f"it has {len(DATASETS)} others"
        raise wrong_option(
            f"reasoning-gym has no generator {generator!r}; {hint}", nearest and f"rg:{nearest}"
        )
    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise wrong_option(f"{name}: an option is written <name>=<value>, not {setting!r}")
        values[key] = _value(value)
    try:
        return (
            create_dataset(generator, seed=1, size=ENDLESS, **values),
            create_dataset(generator, seed=2, size=HELD_OUT, **values),
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise wrong_option(f"{name}: {error}") from None


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


TASKS = (Reasoning,)
