"""Memory of the engine that answers: keys and values, packed weights, what a pass makes. Torch-free.

Counted from nanochat/engine. On a CPU the native runner is assumed. Not covered: CUDA graphs, which keep
memory for each shape of a batch; penalties and log-probabilities, which copy rows of logits.

# Symbols: R rows of a pass, V vocabulary, D width, L blocks, S tokens of a sequence, c bytes of the
#          compute type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.planner.shape import Shape
from nanochat.schedule import matrix_params

# nanochat.engine, which this must not import; tests compare them with real runners
BLOCK = 16
PROMPT_ROWS = {"cpu": 128, "cuda": 512}
PANEL = 64
QUERIES = 4


@dataclass(frozen=True)
class Answering:
    """An engine for `lanes` sequences at once."""

    shape: Shape
    lanes: int
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    tokens: int = 0
    """Of a sequence at most, as rl asks for; 0: as many as the context has."""
    free_bytes: int | None = None
    """Memory of which the cache takes half at most, when `tokens` is 0; None: nobody knows."""
    all_logits: bool = False
    """Scores of text: every row of a pass may be asked for its logits, not one of a sequence."""

    @property
    def compute_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def rows(self) -> int:
        """Of a pass."""
        return self.lanes + PROMPT_ROWS[self.device]


def cache_blocks(a: Answering) -> int:
    """Blocks of 16 tokens, as nanochat.engine.make counts them."""
    whole = -(-a.shape.context // BLOCK)
    # it takes 2 bytes a number on GPUs and 4 on CPUs for granted, whatever the type is
    block = 2 * a.shape.depth * a.shape.width * BLOCK * (4 if a.device == "cpu" else 2)
    wanted = a.lanes * whole
    if a.tokens:
        asked = a.lanes * (a.tokens // BLOCK + 1) + 1
        wanted = min(wanted, asked * block_bytes(a) // block)
    elif a.free_bytes is not None:
        wanted = min(wanted, a.free_bytes // 2 // block)
    return max(whole, wanted)


def block_bytes(a: Answering) -> int:
    """Keys and values of 16 tokens in all layers."""
    return 2 * a.shape.depth * a.shape.width * BLOCK * a.compute_bytes


def cache_bytes(a: Answering) -> int:
    """On GPUs one block more, for rows that only pad."""
    return (cache_blocks(a) + (a.device == "cuda")) * block_bytes(a)


def packed_bytes(a: Answering) -> int:
    """The weights once more, in the order in which the native runner reads them."""
    if a.device == "cuda":
        return 0
    vocabulary = -(-a.shape.vocab_size // PANEL) * PANEL
    return a.compute_bytes * (matrix_params(a.shape.depth) + vocabulary * a.shape.width)


def pass_bytes(a: Answering) -> int:
    """What exists beside cache and weights at the worst moment of a pass: its rows, or its logits."""
    c, D, R = a.compute_bytes, a.shape.width, a.rows
    if a.device == "cpu":
        scratch = R * 48 * D + 4 * R * PANEL + 4 * QUERIES * (a.shape.context + BLOCK)
        return scratch + _logits(a, 4)
    S = a.tokens or a.shape.context
    gathered = 2 * c * a.lanes * S * D + a.lanes * S  # keys and values of all sequences in one layer; mask
    rows = 10 * c * R * D  # stream, norm, and the MLP's two wide ones
    return c * R * D + max(gathered + rows, _logits(a, c + 4))


def _logits(a: Answering, made: int) -> int:
    """Logits in float32, the copies that sampling makes, and `made` bytes a number while they are made."""
    rows = a.rows if a.all_logits else a.lanes
    return rows * a.shape.vocab_size * (4 + max(made, 8))
