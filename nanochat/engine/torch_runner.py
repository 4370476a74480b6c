"""The forward pass with torch: on GPUs, and on CPUs where the native one cannot be had.

Sequences that get one token run as one batch; a longer piece of a prompt runs alone. On GPUs the batch of
single tokens has one of a few shapes (sequences and blocks are padded), and each shape is recorded once as
a CUDA graph: a replay costs one launch instead of hundreds.

# Shapes: B sequences, T new tokens of each, S tokens with cache, H query heads, K key/value heads,
#         E head width, W blocks of a sequence.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.engine.runner import BLOCK, Batch, Ints
from nanochat.gpt import GPT

#: float32 products round differently for 1, 2–3 and ≥ 4 rows; padding makes every batch alike
MIN_ROWS = 4
WIDTH_STEP = 16  # blocks by which the shapes of a GPU's batches grow


class TorchRunner:
    """Runs batches of `model` where it is, in its compute type.

    `static`: pad to few shapes, as graphs need; by default on GPUs only.
    """

    def __init__(self, model: GPT, *, blocks: int, max_rows: int, static: bool | None = None) -> None:
        cfg = model.cfg
        self.model, self.blocks, self.max_rows = model.eval(), blocks, max_rows
        self.context, self.vocab_size = cfg.sequence_len, cfg.vocab_size
        self.precision = str(model.compute_dtype).removeprefix("torch.")
        self.device = model.lm_head.weight.device
        self._static = self.device.type == "cuda" if static is None else static
        # one block more than is given out: rows that only pad write there
        shape = ((blocks + 1) * BLOCK, cfg.n_kv_head, cfg.n_embd // cfg.n_head)
        room = partial(torch.zeros, shape, device=self.device, dtype=model.compute_dtype)
        self._keys = [room() for _ in range(cfg.n_layer)]
        self._values = [room() for _ in range(cfg.n_layer)]
        self._grouped = cfg.n_kv_head != cfg.n_head
        self._graphs: dict[tuple[int, int], _Graph] = {}

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Soft-capped float32 logits (wanted rows, V), on the model's device."""
        starts = np.flatnonzero(np.diff(batch.sequence, prepend=-1))
        counts = np.diff(starts, append=len(batch.tokens))
        hidden = torch.empty(
            len(batch.tokens), self.model.cfg.n_embd, device=self.device, dtype=self.model.compute_dtype
        )
        if len(single := starts[counts == 1]):
            hidden[torch.from_numpy(single).to(self.device)] = self._run(batch, single, 1)[: len(single), 0]
        for start, count in zip(starts, counts, strict=True):
            if count > 1:
                hidden[start : start + count] = self._run(batch, np.array([start]), int(count))[0]
        wanted = torch.from_numpy(batch.wanted).to(self.device)
        if 0 < len(wanted) < MIN_ROWS:
            wanted = F.pad(wanted, (0, MIN_ROWS - len(wanted)))
        return self.model.logits(hidden[wanted])[: len(batch.wanted)]

    def close(self) -> None:
        """Give the cache's memory back."""
        self._graphs.clear()
        self._keys.clear()
        self._values.clear()

    def _run(self, batch: Batch, starts: Ints, T: int) -> Tensor:
        """Hidden states (B, T, D) of the sequences whose rows begin at `starts`, perhaps padded."""
        rows = starts[:, None] + np.arange(T)
        tokens, positions = batch.tokens[rows], batch.positions[rows]
        tables = batch.tables[batch.sequence[starts]]
        width = int(positions.max()) // BLOCK + 1
        if T == 1:
            wanted = 1 << (len(starts) - 1).bit_length() if self._static else MIN_ROWS
            missing = max(0, wanted - len(starts))
            tokens, positions = (np.pad(a, ((0, missing), (0, 0))) for a in (tokens, positions))
            tables = np.pad(tables, ((0, missing), (0, 0)), constant_values=self.blocks)
            if self._static:
                width = min(-(-width // WIDTH_STEP) * WIDTH_STEP, tables.shape[1])
        places = (tables[:, :width, None] * BLOCK + np.arange(BLOCK)).reshape(len(tables), -1)
        inputs = tuple(
            torch.from_numpy(a.astype(np.int64)).to(self.device) for a in (tokens, positions, places)
        )
        if T == 1 and self._static and self.device.type == "cuda":
            shape = (len(tokens), width)
            if shape not in self._graphs:
                self._graphs[shape] = _Graph(self, inputs)
            return self._graphs[shape](inputs)
        return self.hidden(*inputs)

    def hidden(self, ids_BT: Tensor, positions_BT: Tensor, places_BS: Tensor) -> Tensor:
        """(B, T, D); without a word between host and device when `static`."""
        loop = self.device.type == "cpu" and not self._static
        ends = (positions_BT[:, -1] + 1).tolist() if loop else None
        caches = [
            _Layer(k, v, places_BS, positions_BT, self._grouped, ends)
            for k, v in zip(self._keys, self._values, strict=True)
        ]
        return self.model.hidden(ids_BT, positions_BT, caches)


class _Graph:
    """One shape of `TorchRunner.hidden`, recorded."""

    def __init__(self, runner: TorchRunner, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(one.clone() for one in inputs)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is chosen and allocated at a first call must not be recorded
            runner.hidden(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._hidden = runner.hidden(*self._inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for mine, new in zip(self._inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        self._graph.replay()
        return self._hidden


class _Layer:
    """One layer's attention over the blocks of the sequences of one call."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        places_BS: Tensor,
        positions_BT: Tensor,
        grouped: bool,
        ends: list[int] | None,
    ) -> None:
        self._keys, self._values, self._grouped, self._ends = keys, values, grouped, ends
        self._places_BS, self._positions_BT = places_BS, positions_BT

    def attend(self, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        """Store the new tokens, and attend causally to all of their sequence."""
        new_BT = self._places_BS.gather(1, self._positions_BT)
        self._keys[new_BT] = k_BKTE.transpose(1, 2)
        self._values[new_BT] = v_BKTE.transpose(1, 2)
        if self._ends is None:
            return self._attend(q_BHTE, slice(None), self._places_BS.size(1))
        # a loop over sequences: quicker than one padded call on a CPU, and none depends on its neighbours
        return torch.cat([self._attend(q_BHTE, slice(b, b + 1), end) for b, end in enumerate(self._ends)])

    def _attend(self, q_BHTE: Tensor, rows: slice, S: int) -> Tensor:
        places_BS = self._places_BS[rows, :S]
        seen_BTS = self._positions_BT[rows, :, None] >= torch.arange(S, device=q_BHTE.device)
        return F.scaled_dot_product_attention(
            q_BHTE[rows],
            self._keys[places_BS].transpose(1, 2),
            self._values[places_BS].transpose(1, 2),
            attn_mask=seen_BTS[:, None],
            enable_gqa=self._grouped,
        )
