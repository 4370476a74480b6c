"""Batches of token ids. Which rows a step reads depends on its number alone.

The corpus is cut into rows of T tokens, numbered for ever. A step takes the next rows; its micro-batches
and ranks share them. So the order of the data is the same for every number of ranks and every
`device_batch_size`, a resume needs one number, and no token is lost or repeated within an epoch.

# Shapes: B rows of this rank, T tokens.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Tokens(Protocol):
    """A stream of token ids, numbered for ever."""

    def read(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """`count` ids from number `start` on. Raises DataError."""


class Loader:
    """Endless micro-batches `(x_BT, y_BT)`; y is x one token later.

    `row`: the next row of the whole corpus; give it to a new Loader and it goes on there.
    `packed`: rows of the stream are T + 1 tokens on their own (see `TokenStream`), not overlapping.
    """

    def __init__(
        self,
        stream: Tokens,
        *,
        batch: int,
        seq_len: int,
        row: int = 0,
        rank: int = 0,
        size: int = 1,
        packed: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.stream, self.row = stream, row
        self._batch, self._seq_len, self._packed = batch, seq_len, packed
        self._rank, self._size = rank, size
        self._device = torch.device(device)

    @property
    def _first(self) -> int:
        """The first row of this rank's part of the next micro-batch."""
        return self.row + self._rank * self._batch

    def peek(self, count: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """Up to `count` rows that `next` will give, T + 1 ids each. Raises DataError."""
        T = self._seq_len
        apart = T + 1 if self._packed else T
        rows = range(self._first, self._first + min(count, self._batch))
        return [self.stream.read(row * apart, T + 1) for row in rows]

    def next(self) -> tuple[Tensor, Tensor]:
        """This rank's part of the next micro-batch, int64 (B, T) each. Raises DataError."""
        B, T = self._batch, self._seq_len
        first = self._first
        self.row += self._size * B
        if self._packed:
            rows = torch.from_numpy(self.stream.read(first * (T + 1), B * (T + 1))).view(B, T + 1)
            x_BT, y_BT = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
        else:
            ids = torch.from_numpy(self.stream.read(first * T, B * T + 1))
            x_BT, y_BT = ids[:-1].view(B, T), ids[1:].view(B, T)
        if self._device.type == "cuda":
            return (
                x_BT.pin_memory().to(self._device, non_blocking=True),
                y_BT.pin_memory().to(self._device, non_blocking=True),
            )
        return x_BT, y_BT
