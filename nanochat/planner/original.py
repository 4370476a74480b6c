"""Peak memory of nanochat as it was published in 2025, for the one figure that is known of it. Torch-free.

Assumed: eager under autocast to bfloat16; the embedding, its gradient and its Adam state in bfloat16; Muon
and Adam state shared by the ranks; blocks recomputed; all logits at once, capped in bfloat16, then float32
for the cross-entropy; gradients set to None before each step, so that none exists when the loss is worst.
Not covered: runs that do otherwise (docs/planner.md says what that would change).
"""

from __future__ import annotations

from nanochat.planner.memory import Memory, process_bytes
from nanochat.planner.setting import Setting
from nanochat.schedule import matrix_params


def original_memory(s: Setting) -> Memory:
    """Peak of a step of the original trainer with the sizes of `s`: the softmax's backward pass."""
    D, V, N = s.width, s.vocab_size, s.tokens
    matrices, table = matrix_params(s.depth), V * D
    weights = 4 * (matrices + table) + 2 * table
    optimizer = (4 * matrices + 8 * table + 4 * table) // s.ranks
    activations = s.depth * 2 * D * N + 2 * 2 * D * N + 2 * table  # inputs of blocks; last norm; head cast
    logits = V * N
    loss = 2 * logits + 3 * 4 * logits  # tanh; log-softmax, its gradient from the loss, the one by the logits
    buffers = 2 * 8 * N
    held = weights + optimizer + activations + loss + buffers
    return Memory(weights, 0, optimizer, activations, loss, buffers + process_bytes(s, held))


FIELD = Setting(16, 65536, 1536, 10, ranks=2, compiled=False, activation_checkpoint=True)
FIELD_BYTES = int(19.0 * 2**30)
