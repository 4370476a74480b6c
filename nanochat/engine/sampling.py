"""Choosing the next token. Random numbers come from a counter, so a seed means the same sample again,
alone or in a batch, before or after a restart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Sampling:
    """temperature 0: the likeliest token. top_k 0 and top_p 1: no limit."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for each (seed, position): splitmix64 of both."""
    z = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z ^= z >> 31
    return (z >> 11) / (1 << 53)


def choose(logits_V: Tensor, sampling: Sampling, position: int) -> int:
    """The token at `position` of a sequence, from float32 logits: temperature, top-k, top-p, inverse CDF."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    scores = logits_V / sampling.temperature
    tokens = None
    vocabulary = scores.numel()
    if 0 < sampling.top_k < vocabulary:
        scores, tokens = scores.topk(sampling.top_k)  # sorted, highest first
    elif sampling.top_p < 1:
        scores, tokens = scores.sort(descending=True)
    probabilities = scores.softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    if sampling.top_p < 1:
        # the smallest set that holds top_p: tokens before which less than top_p has been collected
        kept = int((cumulative - probabilities < sampling.top_p).sum())
        cumulative = cumulative[: max(1, kept)]
    target = uniform(sampling.seed, position) * float(cumulative[-1])
    index = int(torch.searchsorted(cumulative, torch.tensor(target, dtype=cumulative.dtype), right=True))
    index = min(index, cumulative.numel() - 1)
    return index if tokens is None else int(tokens[index])
