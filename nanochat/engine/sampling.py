"""Choosing the next tokens of a whole batch, each row by its own wishes, with no sort of the vocabulary.

Random numbers come from a counter: one uniform number per (seed, position) and the inverse of the
distribution function. So a seed means the same sample again, alone or in a batch, before or after a restart.
Order: bias, penalties, temperature, top-k, top-p, min-p.

# Shapes: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLDEST = 1e-5  # below, dividing by the temperature would overflow: the likeliest token is certain
FEW = 64  # a top-k up to this is found among so many of the likeliest tokens
CANDIDATES = 256  # other top-k and top-p look at these; only a flatter distribution is sorted whole
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Sampling:
    """temperature 0: the likeliest token. top_k 0, top_p 1, min_p 0 and a repetition of 1: no limit."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> bool:
        """Whether logits change before they are drawn from, by bias or penalties."""
        return bool(self.bias or self.presence or self.frequency or self.repetition != 1)

    @cached_property
    def limits(self) -> bool:
        """Whether only the likeliest tokens may be drawn."""
        return self.top_k > 0 or self.top_p < 1


def uniform(seeds: Sequence[int], positions: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A number in [0, 1) for each (seed, position): splitmix64 (Steele et al. 2014) of both."""
    seed = np.array([seed & _MASK for seed in seeds], dtype=np.uint64)
    position = np.array(positions, dtype=np.uint64)
    z = seed * np.uint64(_GOLDEN) + (position + np.uint64(1)) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) / float(1 << 53)


class Sampler:
    """Draws for batches; what depends on the rows' wishes alone is kept while the rows stay the same."""

    def __init__(self, vocab_size: int, never: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._vocab_size, self._device = vocab_size, torch.device(device)
        self._never = torch.tensor(list(never), dtype=torch.long, device=self._device)
        self._wishes: list[Sampling] = []

    def __call__(
        self,
        logits_BV: Tensor,
        wishes: list[Sampling],
        positions: Sequence[int],
        histories: Sequence[tuple[Sequence[int], int]],
    ) -> list[int]:
        """One token for each row of float32 logits, which are overwritten.

        `positions` number the draws; `histories` are each row's tokens and how many of them are prompt.
        """
        logits_BV[:, self._never] = float("-inf")
        if wishes != self._wishes:
            self._prepare(wishes)
        for row in self._shaped:
            _shape(logits_BV[row], wishes[row], *histories[row])
        if not len(self._drawn):
            tokens: list[int] = logits_BV.argmax(1).tolist()
            return tokens
        chosen_B = logits_BV.argmax(1) if len(self._drawn) < len(wishes) else logits_BV.new_empty(0)
        uniforms = uniform([wishes[i].seed for i in self._drawn], [positions[i] for i in self._drawn])
        u_D = torch.from_numpy(uniforms).to(self._device, torch.float32)
        everything = len(self._drawn) == len(wishes)
        scores_DV = logits_BV if everything else logits_BV[self._drawn_D]
        scores_DV = scores_DV / self._temperature_D1
        drawn_D = torch.empty(len(u_D), dtype=torch.long, device=self._device)
        if len(self._plain_D):
            drawn_D[self._plain_D] = _inverse(scores_DV[self._plain_D].softmax(1), u_D[self._plain_D])
        if len(self._limited_D):
            drawn_D[self._limited_D] = self._limited(scores_DV[self._limited_D], u_D[self._limited_D])
        if everything:
            drawn: list[int] = drawn_D.tolist()
            return drawn
        chosen_B[self._drawn_D] = drawn_D
        chosen: list[int] = chosen_B.tolist()
        return chosen

    def _prepare(self, wishes: list[Sampling]) -> None:
        def numbers(values: Sequence[float], kind: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=kind, device=self._device)

        self._wishes = list(wishes)
        self._shaped = [i for i, wish in enumerate(wishes) if wish.shapes]
        self._drawn = [i for i, wish in enumerate(wishes) if wish.temperature >= COLDEST]
        drawn = [wishes[i] for i in self._drawn]
        self._drawn_D = numbers(self._drawn, torch.long)
        self._temperature_D1 = numbers([wish.temperature for wish in drawn])[:, None]
        limited = [i for i, wish in enumerate(drawn) if wish.limits or wish.min_p > 0]
        self._limited_D = numbers(limited, torch.long)
        self._plain_D = numbers(sorted(set(range(len(drawn))) - set(limited)), torch.long)
        picked = [drawn[i] for i in limited]
        V = self._vocab_size
        top_k = [wish.top_k if 0 < wish.top_k < V else V for wish in picked]
        self._few_L = numbers([i for i, k in enumerate(top_k) if k <= FEW], torch.long)
        self._many_L = numbers([i for i, k in enumerate(top_k) if k > FEW], torch.long)
        self._may_need_all = max(top_k, default=0) > CANDIDATES
        self._top_k_L1 = numbers(top_k, torch.long)[:, None]
        self._top_p_L1 = numbers([wish.top_p for wish in picked])[:, None]
        self._min_p_L1 = numbers([wish.min_p for wish in picked])[:, None]

    def _limited(self, scores_LV: Tensor, u_L: Tensor) -> Tensor:
        """Draws among the tokens that top-k, top-p and min-p leave, from the likeliest down.

        How many tokens a row looks at depends on its own top-k alone: sums of fewer numbers may round
        otherwise, and a row must draw the same whatever stands beside it.
        """
        few, many = self._few_L, self._many_L
        if not len(many):
            return self._among(scores_LV, u_L, slice(None), FEW)[0]
        result_L = torch.empty(len(u_L), dtype=torch.long, device=u_L.device)
        if len(few):
            result_L[few] = self._among(scores_LV[few], u_L[few], few, FEW)[0]
        result_L[many], enough = self._among(scores_LV[many], u_L[many], many, CANDIDATES)
        if self._may_need_all and len(rest := many[~enough]):
            result_L[rest] = self._among(scores_LV[rest], u_L[rest], rest, self._vocab_size)[0]
        return result_L

    def _among(
        self, scores_LV: Tensor, u_L: Tensor, rows: slice | Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """(tokens, whether the `count` likeliest were certainly enough) of each row."""
        top_k_L1, top_p_L1, min_p_L1 = self._top_k_L1[rows], self._top_p_L1[rows], self._min_p_L1[rows]
        count = min(count, self._vocab_size)
        top_LC, tokens_LC = scores_LV.topk(count, dim=1)
        rank_C = torch.arange(count, device=scores_LV.device)
        within_LC = rank_C < top_k_L1
        # top-p counts shares of what top-k left: of everything where top-k is off
        left_L1 = top_LC.masked_fill(~within_LC, float("-inf")).logsumexp(1, keepdim=True)
        if self._may_need_all:
            whole_L1 = scores_LV.logsumexp(1, keepdim=True)
            left_L1 = torch.where(top_k_L1 < self._vocab_size, left_L1, whole_L1)
        p_LC = (top_LC - left_L1).exp().where(within_LC, 0.0)
        before_LC = p_LC.cumsum(1) - p_LC
        kept_LC = within_LC & (before_LC < top_p_L1) & (p_LC >= min_p_L1 * p_LC[:, :1])
        kept_LC[:, 0] = True
        drawn_L = _inverse(p_LC.where(kept_LC, 0.0), u_L)
        enough_L = (~kept_LC[:, -1]) | (count == self._vocab_size) | (top_k_L1[:, 0] <= count)
        return tokens_LC.gather(1, drawn_L[:, None])[:, 0], enough_L


def _inverse(p_BV: Tensor, u_B: Tensor) -> Tensor:
    """The first index whose cumulated share exceeds u; never one of probability 0.

    A model that has diverged has no probabilities: then it is any index, but one.
    """
    cumulated_BV = p_BV.cumsum(1)
    total_B1 = cumulated_BV[:, -1:]
    target_B1 = torch.minimum(u_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(cumulated_BV, target_B1, right=True)[:, 0].clamp_max(p_BV.size(1) - 1)


def _shape(logits_V: Tensor, wish: Sampling, tokens: Sequence[int], prompt: int) -> None:
    """Bias and penalties of one row, in place.

    Presence and frequency count what was generated (OpenAI), repetition the prompt too (Keskar et al. 2019).
    """
    if wish.bias:
        where = torch.tensor(list(wish.bias), device=logits_V.device)
        logits_V[where] += torch.tensor(list(wish.bias.values()), device=logits_V.device)
    if wish.repetition != 1:
        seen = torch.tensor(sorted(set(tokens)), device=logits_V.device)
        old = logits_V[seen]
        logits_V[seen] = torch.where(old > 0, old / wish.repetition, old * wish.repetition)
    if (wish.presence or wish.frequency) and len(tokens) > prompt:
        times = Counter(tokens[prompt:])
        said = torch.tensor(list(times), device=logits_V.device)
        counts = torch.tensor(list(times.values()), device=logits_V.device)
        logits_V[said] -= wish.presence + wish.frequency * counts
