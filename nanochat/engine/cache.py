"""Keys and values of every sequence that is being generated, in slots of fixed size.

# Shapes: B rows of this step, H query heads, K key/value heads, T new tokens per row, S tokens with
#         cache, E head width.

Not covered: paging, prefixes shared by several slots, quantised values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.gpt import GPTConfig


class SlotCache:
    """Room for `slots` sequences of `capacity` tokens, one tensor pair per layer."""

    def __init__(
        self, cfg: GPTConfig, slots: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (slots, cfg.n_kv_head, capacity, cfg.n_embd // cfg.n_head)
        self.capacity = capacity
        self.grouped = cfg.n_kv_head != cfg.n_head
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(cfg.n_layer)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(cfg.n_layer)]

    def layers(self, rows: Sequence[tuple[int, int]]) -> list[RowsCache]:
        """Per layer: attention for rows of (slot, tokens it holds already)."""
        return [
            RowsCache(keys, values, rows, self.grouped)
            for keys, values in zip(self.keys, self.values, strict=True)
        ]


class RowsCache:
    """One layer's attention for the rows of one step.

    A loop over rows: on a CPU it is quicker than one padded call with a mask, and a row's result does
    not depend on its neighbours.
    """

    def __init__(self, keys: Tensor, values: Tensor, rows: Sequence[tuple[int, int]], grouped: bool) -> None:
        self._keys, self._values, self._rows, self._grouped = keys, values, rows, grouped

    def attend(self, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        """Store the new tokens behind those each row holds, and attend causally to all of them."""
        T = q_BHTE.size(2)
        out = torch.empty_like(q_BHTE)
        for row, (slot, past) in enumerate(self._rows):
            self._keys[slot, :, past : past + T] = k_BKTE[row]
            self._values[slot, :, past : past + T] = v_BKTE[row]
            out[row] = F.scaled_dot_product_attention(
                q_BHTE[row : row + 1],
                self._keys[slot : slot + 1, :, : past + T],
                self._values[slot : slot + 1, :, : past + T],
                attn_mask=_causal(T, past, q_BHTE.device) if past and T > 1 else None,
                is_causal=past == 0 and T > 1,
                enable_gqa=self._grouped,
            )[0]
        return out


def _causal(T: int, past: int, device: torch.device) -> Tensor:
    """(T, past + T): new token t sees everything up to itself."""
    return torch.ones(T, past + T, dtype=torch.bool, device=device).tril(past)
