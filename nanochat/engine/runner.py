"""What the engine asks of a model runner: one forward pass over rows of any sequences.

A row is one token. Keys and values lie in blocks of 16 tokens that any sequence may point to.
`NativeRunner` (C, on a CPU) and `TorchRunner` keep to this; one contract test runs both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

BLOCK = 16  # tokens of one block
Ints = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Batch:
    """Rows of one pass, int32 and contiguous; those of a sequence stand together, in order.

    `tokens`, `positions`, `sequence` (a row of `tables`): one each per row. `tables`: block numbers of
    each sequence. `wanted`: the rows whose logits are asked for, ascending.
    """

    tokens: Ints
    positions: Ints
    sequence: Ints
    tables: Ints
    wanted: Ints


class Runner(Protocol):
    """A model with room for `blocks` blocks, at most `max_rows` rows at a time."""

    context: int
    vocab_size: int
    blocks: int
    max_rows: int
    precision: str

    def forward(self, batch: Batch) -> Tensor:
        """Store every row's keys and values, and give the soft-capped float32 logits (wanted, V)."""

    def close(self) -> None:
        """Give the memory back."""
