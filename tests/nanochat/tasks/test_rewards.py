"""Rewards, pass@k and the tasks of reasoning-gym."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nanochat.configurator import ConfigError
from nanochat.errors import DataError
from nanochat.tasks import reasoning
from nanochat.tasks.mixture import parse as parse_tasks
from nanochat.tasks.registry import kinds, open_task
from nanochat.tasks.rewards import Answer, parse, pass_at_k, score
from nanochat.tasks.task import Generator


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer() -> None:
    for samples in range(1, 8):
        for right in range(samples + 1):
            answers = [True] * right + [False] * (samples - right)
            for k in range(1, samples + 1):
                subsets = [any(subset) for subset in combinations(answers, k)]
                assert pass_at_k(samples, right, k) == pytest.approx(sum(subsets) / len(subsets))


def test_pass_at_more_than_was_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="k = 4 of 3"):
        pass_at_k(3, 1, 4)


def test_rewards_are_mixed_by_name_and_weight() -> None:
    task = open_task("sums", "test", Path())
    problem = task[0]
    assert parse("exact") == {"exact": 1.0}
    weights = parse("exact:1.0, format:0.2,short:-1")
    assert weights == {"exact": 1.0, "format": 0.2, "short": -1.0}
    assert score(Answer(task, problem, problem.expected, True, 0.25), weights) == {
        "exact": 1.0,
        "format": 1.0,
        "short": 0.75,
    }
    assert score(Answer(task, problem, "", True, 1.0), weights) == {"exact": 0.0, "format": 0.0, "short": 0.0}


@pytest.mark.parametrize(
    ("text", "said"), [("exat", "the nearest is 'exact'"), ("exact:x", "no number"), ("", "no reward")]
)
def test_a_wrong_reward_is_a_config_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "name", [name for name, kind in kinds().items() if issubclass(kind, Generator) and name != "rg"]
)
def test_every_task_gives_problems_to_practise_on_that_its_own_answer_solves(name: str) -> None:
    task = open_task(name, "train", Path())
    held_out = {example.question for example in task.held_out}
    for seed in range(40):
        problem = task.sample(random.Random(seed))
        text = problem.answer if isinstance(problem.answer, str) else problem.answer[-1]["text"]
        assert task.reward(problem, text) == 1.0 and task.reward(problem, "nonsense") == 0.0
        assert problem.question not in held_out and task.sample(random.Random(seed)) == problem


class Doubling:
    """What reasoning-gym's datasets are to us."""

    def __init__(self, seed: int, size: int, below: int = 10_000) -> None:
        assert below > 0, "below must be positive"
        self.seed, self.below = seed, below

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = random.Random(f"{self.seed} {index}").randrange(self.below)
        return {"question": f"twice {number}?", "answer": str(2 * number), "metadata": {"number": number}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        exact = answer == str(2 * entry["metadata"]["number"])
        return 1.0 if exact else 0.5 if entry["answer"] in answer else 0.0


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for reasoning-gym, which is not installed everywhere."""

    def create_dataset(name: str, **options: Any) -> Doubling:
        return {"doubling": Doubling}[name](**options)

    factory = ModuleType("reasoning_gym.factory")
    factory.DATASETS, factory.create_dataset = {"doubling": Doubling}, create_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", ModuleType("reasoning_gym"))
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)
    reasoning._generators.cache_clear()
    yield
    reasoning._generators.cache_clear()


@pytest.mark.usefixtures("package")
def test_a_generator_is_a_task_whose_held_out_problems_are_never_practised(tmp_path: Any) -> None:
    (part,) = parse_tasks("rg:doubling:below=600", tmp_path)
    task = part.task
    held_out = {problem.question for problem in task.held_out}
    assert task.name == "rg:doubling:below=600" and 0 < len(held_out) <= 256
    rng = random.Random(1)
    for _ in range(300):
        problem = task.sample(rng)
        assert problem.question not in held_out
        assert [task.reward(problem, text) for text in (f" {problem.expected}\n", "?")] == [1.0, 0.0]
        assert task.reward(problem, f"it is {problem.expected}") == 0.5
        assert not task.evaluate(problem, f"it is {problem.expected}")
    assert str(task.sample(rng).answer).isdigit()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rg:doublin", "the nearest is 'rg:doubling'"),
        ("rg:doubling:below", "an option is written"),
        ("rg:doubling:below=-1", "below must be positive"),
        ("rg:doubling:above=2", "above"),
    ],
)
def test_a_wrong_generator_or_option_is_a_config_error(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_tasks(name, Path())


@pytest.mark.usefixtures("package")
def test_a_generator_with_too_few_problems_says_so() -> None:
    with pytest.raises(DataError, match="widen its options"):
        open_task("rg:doubling:below=2", "train", Path()).sample(random.Random(1))


def test_without_the_package_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    reasoning._generators.cache_clear()
    with pytest.raises(DataError, match="pip install reasoning-gym"):
        open_task("rg:chain_sum", "test", Path())


def test_the_real_package_makes_and_judges_problems() -> None:
    pytest.importorskip("reasoning_gym")
    reasoning._generators.cache_clear()
    name = "rg:chain_sum:min_terms=2:max_terms=2:min_digits=1:max_digits=2"
    task = open_task(name, "train", Path())
    problem = task.sample(random.Random(3))
    assert task.evaluate(problem, problem.expected) and not task.evaluate(problem, "no")
