"""What decides the memory of one rank: sizes, types, and how the step is run. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.schedule import table_params, value_embedding_layers

ATTENTION_BLOCK, ATTENTION_LONGEST = 256, 1024  # nanochat.attention, which this must not import
CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}  # nanochat.loss, likewise; a test compares them
GRAD_CACHED = 24 << 20


@dataclass(frozen=True)
class Setting:
    """One rank of a base run, as far as memory goes."""

    depth: int
    vocab_size: int
    seq_len: int
    device_batch_size: int
    ranks: int = 1
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    device: Literal["cpu", "cuda"] = "cuda"
    compiled: bool = True
    activation_checkpoint: bool = False
    value_embeddings: bool = False
    residual_scalars: bool = False
    normuon: bool = False
    bf16_hardware: bool = True
    """Newton-Schulz runs in bfloat16; without such hardware in float32."""
    saves_while_training: bool = False
    """Checkpoints are written behind the training's back: on a CPU their copies count."""
    tight: bool = False
    """On a CPU: MALLOC_MMAP_THRESHOLD_=131072, so that what is freed goes back to the system at once."""
    runtime: bool = True
    """Count the process itself and what an allocator wastes, not tensors only."""

    @property
    def width(self) -> int:
        return 64 * self.depth

    @property
    def heads(self) -> int:
        return max(1, -(-self.width // 128))

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.device_batch_size * self.seq_len

    @property
    def compute_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def casts(self) -> bool:
        """Weights are cast to the compute type for every product."""
        return self.compute_bytes != 4

    @property
    def value_layers(self) -> int:
        return value_embedding_layers(self.depth) if self.value_embeddings else 0

    @property
    def tables(self) -> int:
        """Parameters in tables of V rows."""
        return table_params(self.depth, self.vocab_size, self.value_embeddings)

    @property
    def stored_probabilities(self) -> bool:
        """Attention in blocks of matrix products, which keep the probabilities (nanochat.attention)."""
        return self.device == "cpu" and self.seq_len <= ATTENTION_LONGEST

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk of the loss."""
        least = 1024 if self.device == "cpu" and 4 * self.vocab_size * self.width > GRAD_CACHED else 256
        rows = max(least, CHUNK_BYTES[self.device] // (4 * self.vocab_size) // 64 * 64)
        return min(self.tokens, rows)
