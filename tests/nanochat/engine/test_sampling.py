"""Each row is drawn by its own wishes, as if it were alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanochat.engine.sampling import Sampler, Sampling, uniform

LOGITS = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()


def draw(
    logits: Tensor, wish: Sampling, times: int = 1, tokens: tuple[int, ...] = (), prompt: int = 0
) -> list[int]:
    """`times` draws at as many positions, in one batch."""
    sampler = Sampler(logits.numel(), [])
    rows = logits.expand(times, -1).clone()
    return sampler(rows, [wish] * times, list(range(times)), [(tokens, prompt)] * times)


def test_sampling_follows_the_probabilities() -> None:
    counts = torch.bincount(torch.tensor(draw(LOGITS, Sampling(1.0, seed=3), 4000)), minlength=4)
    assert torch.allclose(counts / 4000, LOGITS.exp(), atol=0.03)


def test_temperature_sharpens() -> None:
    counts = torch.bincount(torch.tensor(draw(LOGITS, Sampling(0.5, seed=3), 4000)), minlength=4)
    expected = (LOGITS / 0.5).softmax(0)
    assert torch.allclose(counts / 4000, expected, atol=0.03)


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        (Sampling(1.0, top_k=2), {2, 3}), (Sampling(1.0, top_p=0.39), {3}),
        (Sampling(1.0, top_p=0.65), {2, 3}),
        (Sampling(1.0, top_k=3, top_p=0.5), {2, 3}), (Sampling(1.0, min_p=0.6), {2, 3}), (Sampling(0.0), {3}),
        (Sampling(1.0, min_p=1.0), {3}), (Sampling(1.0, bias={0: 100.0}), {0}),
        (Sampling(0.0, bias={3: -100.0}), {2}), (Sampling(0.0, top_k=1, seed=9), {3}),
    ],
)  # fmt: skip
def test_limits_leave_only_the_likeliest(wish: Sampling, left: set[int]) -> None:
    assert set(draw(LOGITS, wish, 300)) == left


def test_a_flat_distribution_is_limited_right_beyond_the_candidates() -> None:
    logits = torch.linspace(0, 0.1, 2000)
    drawn = torch.tensor(draw(logits, Sampling(1.0, top_p=0.9, seed=1), 3000))
    order = logits.argsort(descending=True)
    share = logits.softmax(0)[order].cumsum(0)
    allowed = order[: int((share < 0.9).sum()) + 1]
    assert torch.isin(drawn, allowed).all()
    assert len(drawn.unique()) > 1000


def test_penalties_count_what_was_generated_and_repetition_the_prompt_too() -> None:
    logits = torch.tensor([1.0, 1.1, 1.2, 1.3])
    said = (2, 3, 3)
    assert draw(logits, Sampling(0.0, presence=0.15), tokens=said, prompt=1) == [2]
    assert draw(logits, Sampling(0.0, frequency=0.2), tokens=said) == [1]
    assert draw(logits, Sampling(0.0, repetition=2.0), tokens=said, prompt=3) == [1]
    assert draw(logits, Sampling(0.0, presence=5.0), tokens=said, prompt=3) == [3]


@pytest.mark.parametrize(
    "wish", [Sampling(1.0), Sampling(1.0, top_k=2), Sampling(1.0, top_p=0.5), Sampling(0.0)]
)
def test_a_diverged_model_still_says_tokens(wish: Sampling) -> None:
    assert all(0 <= token < 4 for token in draw(torch.full((4,), float("nan")), wish, 5))


def test_hardly_any_temperature_is_none() -> None:
    assert set(draw(LOGITS, Sampling(1e-38), 20)) == {3}


def test_tokens_that_are_never_said_are_not() -> None:
    rows = torch.tensor([[0.0, 9.0, 1.0]] * 50)
    assert set(Sampler(3, [1])(rows, [Sampling(2.0)] * 50, list(range(50)), [((), 0)] * 50)) == {0, 2}


WISHES = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 300, 10_000]),
    top_p=st.sampled_from([1.0, 0.95, 0.3]),
    min_p=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**63 - 1),
    presence=st.sampled_from([0.0, 1.0]),
    repetition=st.sampled_from([1.0, 1.5]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WISHES, min_size=1, max_size=9), st.integers(0, 1000))
def test_a_row_is_drawn_as_if_it_were_alone(wishes: list[Sampling], position: int) -> None:
    logits = 4 * torch.randn(len(wishes), 700, generator=torch.Generator().manual_seed(position))
    histories = [([5, 6, 7, 7], 2)] * len(wishes)
    sampler = Sampler(700, [3])
    places = [position + i for i in range(len(wishes))]
    together = sampler(logits.clone(), wishes, places, histories)
    assert together == sampler(logits.clone(), list(wishes), places, histories)  # wishes are remembered
    for i, wish in enumerate(wishes):
        alone = Sampler(700, [3])(logits[i : i + 1].clone(), [wish], places[i : i + 1], histories[:1])
        assert alone == together[i : i + 1]


@given(st.integers(0, 2**63), st.integers(0, 10_000))
def test_a_random_number_depends_on_seed_and_position_alone(seed: int, position: int) -> None:
    first, second, again = uniform([seed, seed, seed], [position, position + 1, position])
    assert 0 <= first < 1
    assert first == again != second


def test_random_numbers_are_spread_evenly() -> None:
    numbers = torch.from_numpy(uniform([11] * 20_000, range(20_000)))
    assert torch.histc(numbers, 10, 0, 1).sub(2000).abs().max() < 200


def test_a_wish_knows_what_it_does() -> None:
    assert not Sampling().shapes and not Sampling().limits
    assert dataclasses.replace(Sampling(), bias={1: 2.0}).shapes
