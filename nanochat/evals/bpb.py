"""Bits per byte: a loss that does not depend on the vocabulary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nanochat.common import World
from nanochat.gpt import GPT
from nanochat.loader import Loader


@torch.no_grad()
def bits_per_byte(model: GPT, batches: Loader, count: int, token_bytes_V: Tensor, world: World) -> float:
    """Σ nats / (ln 2 · Σ bytes) over `count` batches per rank; special tokens count for nothing.

    Infinite when there is no byte at all.
    """
    training = model.training
    model.eval()
    nats = bytes_seen = 0.0
    for _ in range(count):
        ids_BT, targets_BT = batches.next()
        loss_N = model(ids_BT, targets_BT, reduction="none")
        bytes_N = token_bytes_V[targets_BT.flatten()]
        nats += float((loss_N * (bytes_N > 0)).sum(dtype=torch.float64))
        bytes_seen += float(bytes_N.sum(dtype=torch.float64))
    model.train(training)
    nats, bytes_seen = world.sum(nats, bytes_seen)
    return nats / (math.log(2) * bytes_seen) if bytes_seen else math.inf
