"""Peak memory of one rank, part by part, from the shapes alone. Torch-free.

Weights, gradients and optimizer state are held all the time. On top of them comes the largest of a few
moments of a step (`moments`), each counted tensor by tensor from the code in gpt.py, attention.py, loss.py
and optim.py. docs/planner.md compares the sums with fake tensors and with measured runs.
Not covered: `fp8`; tensors of less than D numbers a token (row sums are counted, scalars are not);
evaluation and sampling, which need less than training.

# Symbols: N tokens of a micro-batch, T context, V vocabulary, D width, L blocks, H heads,
#          c bytes of the compute type, P parameters, M of them in matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from nanochat.planner.answering import Answering, cache_bytes, packed_bytes, pass_bytes
from nanochat.planner.setting import ATTENTION_BLOCK, Setting
from nanochat.schedule import matrix_params

# Typical sizes on current cards and drivers, not measured by us (docs/planner.md, "Constants").
CUDA_CONTEXT = 600 << 20  # driver context, kernels, cuBLAS workspaces
NCCL_BUFFERS = 250 << 20
CUDA_FRAGMENTATION = 0.04  # of what is allocated
# Measured: RSS of `scripts.base_train` beyond its tensors (docs/planner.md, "Constants").
CPU_RUNTIME = {False: 345 << 20, True: 495 << 20}  # eager, compiled
CPU_GLOO = 40 << 20
# glibc keeps tensors below 32 MiB in a heap whose holes its aligned allocations rarely fit again
HEAP_LARGEST = 32 << 20
HEAP_WASTE = {False: 0.6, True: 0.35}  # of the tensors in it, eager and compiled; fitted (docs/planner.md)


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at the moment of its peak."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    buffers: int
    cache: int = 0
    """Keys and values of sequences that are generated."""

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))

    def to_dict(self) -> dict[str, int]:
        return {**{part.name: getattr(self, part.name) for part in fields(self)}, "total": self.total}


class Moment(NamedTuple):
    """What exists at one moment of a step beside weights, gradients and state."""

    activations: int
    loss: int = 0
    buffers: int = 0


def peak_memory(s: Setting) -> Memory:
    """Peak of a training step, or of the checkpoint after it."""
    weights = gradients = 4 * padded_params(s)
    optimizer = 4 * _padded_matrices(s) // s.ranks + 8 * _padded_tables(s) // s.ranks
    peak = moments(s)[worst_moment(s)]
    buffers = (
        peak.buffers + rotary_bytes(s.seq_len, s.width, s.heads) + 24 * s.tokens
    )  # ids, targets (int64) and weights of the rows
    if s.device == "cpu" and s.saves_while_training:
        buffers += _checkpoint_copies(s)
    held = weights + gradients + optimizer + peak.activations + peak.loss + buffers
    buffers += process_bytes(s, held)
    return Memory(weights, gradients, optimizer, peak.activations, peak.loss, buffers)


def answering_memory(s: Setting, a: Answering) -> Memory:
    """While an engine answers between two steps: what is held for training, and what the engine takes."""
    learning = peak_memory(s)
    buffers = rotary_bytes(a.shape.context, s.width, s.heads) + packed_bytes(a) + pass_bytes(a)
    if s.device == "cpu" and s.saves_while_training:
        buffers += _checkpoint_copies(s)
    cache = cache_bytes(a)
    held = learning.weights + learning.gradients + learning.optimizer + buffers + cache
    buffers += process_bytes(s, held)
    return replace(learning, activations=0, loss=0, buffers=buffers, cache=cache)


def worst_moment(s: Setting) -> str:
    """Name of the moment that makes the peak."""
    found = moments(s)
    return max(found, key=lambda name: sum(found[name]))


def moments(s: Setting) -> dict[str, Moment]:
    """The candidates for the peak, in the order of a step."""
    c, D, N = s.compute_bytes, s.width, s.tokens
    kept = kept_by_forward(s)
    loss_gradient = c * D * N  # of the last hidden state: made with the loss, held to the end of the step
    # after the loss the last hidden state itself goes, and the last norm has been differentiated
    backward = kept - c * D * N - _norm_input(s)
    if s.activation_checkpoint:  # one block is computed again
        backward += block_bytes(s) - _shared_input(s)
    stream = c * D * N  # gradient of the residual stream
    first = stream * s.residual_scalars  # of x₀, as soon as one block is done
    found = {
        "loss": Moment(kept, loss_gradient + _loss(s)),
        "mlp backward": Moment(backward, loss_gradient, stream + _mlp_backward(s)),
        "attention backward": Moment(backward - _mlp_kept(s), loss_gradient, stream + _attention_backward(s)),
        "embedding backward": Moment(0, loss_gradient, 4 * D * (s.vocab_size + N) + stream + first),
        "optimizer": Moment(0, loss_gradient, _optimizer_step(s)),
    }
    if s.runtime:  # not part of a step
        found["checkpoint"] = Moment(0, loss_gradient, _checkpoint(s))
    if s.value_embeddings:  # the last block's table comes first, while all other blocks are still kept
        rows = 4 * D * (s.vocab_size + N) + c * D * N
        left = backward - block_bytes(s)
        found["value backward"] = Moment(left, loss_gradient, rows + stream + first)
    return found


# ---------------------------------------------------------------- what is held all the time


def padded_params(s: Setting) -> int:
    """All parameters; stacks and tables are padded to a multiple of the ranks."""
    return _padded_matrices(s) + _padded_tables(s)


def _padded_matrices(s: Setting) -> int:
    if s.ranks == 1:
        return matrix_params(s.depth)
    squares, rectangles = _up(4 * s.depth, s.ranks), _up(s.depth, s.ranks)
    return s.width**2 * (squares + 8 * rectangles)


def _padded_tables(s: Setting) -> int:
    return s.tables // s.vocab_size * _up(s.vocab_size, s.ranks)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


# ---------------------------------------------------------------- forward pass


def kept_by_forward(s: Setting) -> int:
    """All that autograd keeps when the forward pass has ended, the last hidden state included."""
    c, D, N = s.compute_bytes, s.width, s.tokens
    ends = 2 * _norm_input(s) + c * D * N + 3 * 4 * N  # embedding; last block's output, raw and normed
    outside = (s.residual_scalars + s.value_layers) * c * D * N  # x₀; each table's rows
    if s.activation_checkpoint:
        # x₀ is also the first block's input
        return ends + outside + (s.depth - s.residual_scalars) * c * D * N
    return ends + outside + s.depth * block_bytes(s) - _shared_x0(s)


def block_bytes(s: Setting) -> int:
    """What autograd keeps of one block until its backward pass, for all tokens of a micro-batch.

    Inputs of both norms, both normed; queries and keys before and after their norm, values, the output of
    attention; relu and its square, 4·D wide each. Weights cast to the compute type stay, too.
    """
    return _attention_kept(s) + _mlp_kept(s)


def _attention_kept(s: Setting) -> int:
    c, D, N = s.compute_bytes, s.width, s.tokens
    # x q k; the same normed, v, y; 1/rms
    kept = 3 * _norm_input(s) + 5 * c * D * N + 4 * (1 + 2 * s.heads) * N
    if s.stored_probabilities:
        kept += s.device_batch_size * s.heads * _seen(s.seq_len) * c
    else:
        kept += 4 * s.heads * N + (c * D * N if s.device == "cpu" else 0)  # row sums; y once more, as B·T·D
    if s.residual_scalars and not s.compiled:
        kept += c * D * N  # the stream before x₀ is mixed in
    return kept + (4 * D * D * c if s.casts else 0)


def _mlp_kept(s: Setting) -> int:
    c, D, N = s.compute_bytes, s.width, s.tokens
    return _norm_input(s) + 9 * c * D * N + 4 * N + (8 * D * D * c if s.casts else 0)


def _norm_input(s: Setting) -> int:
    """A norm keeps its input: eager on a CPU as float32, where it is no single kernel."""
    wide = s.device == "cpu" and not s.compiled
    return (4 if wide else s.compute_bytes) * s.width * s.tokens


def _shared_x0(s: Setting) -> int:
    """The first block's input is x₀, which is counted already."""
    return s.compute_bytes * s.width * s.tokens if s.residual_scalars else 0


def _shared_input(s: Setting) -> int:
    """A block keeps its input as it is when a norm keeps it, or the mixing with x₀ does."""
    input_bytes = s.compute_bytes * s.width * s.tokens
    mixed = s.residual_scalars and not s.compiled
    return input_bytes if mixed or _norm_input(s) == input_bytes else 0


def _seen(T: int) -> int:
    """Scores of one head and row in blocks of queries against the keys they may see."""
    starts = range(0, T, ATTENTION_BLOCK)
    return sum((min(T, at + ATTENTION_BLOCK) - at) * min(T, at + ATTENTION_BLOCK) for at in starts)


# ---------------------------------------------------------------- loss


def _loss(s: Setting) -> int:
    """The largest moment of the chunked loss, beside the gradient it leaves."""
    c, D, V = s.compute_bytes, s.width, s.vocab_size
    head = c * V * D if s.casts else 0  # cast once for all chunks
    logits = s.chunk_rows * V
    earlier = c if s.chunk_rows < s.tokens else 0  # the chunk before: its gradient still has a name
    eager = c + 4 * 4 if s.casts else 5 * 4  # product; tanh, exp, two factors in float32
    inside = 2 * c if s.compiled else eager  # product and its gradient
    partial = logits * c + (c * V * D if s.casts else 0)  # the chunk's part of the head's gradient
    return head + max(logits * (inside + earlier), partial)


# ---------------------------------------------------------------- backward pass


def _mlp_backward(s: Setting) -> int:
    """Beyond what is kept, at the worst of two moments of the last MLP's backward pass."""
    c, D, N = s.compute_bytes, s.width, s.tokens
    matrix = 4 * D * D * ((4 + c) if s.casts else 4)  # gradient of the last matrix, in both types
    wide = 4 * c * D * N  # gradient of relu²
    if s.compiled:
        return wide + 2 * matrix  # one kernel does relu² in place; a block's gradients leave together
    gone = wide + (4 * D * D * c if s.casts else 0)  # the square and the cast of its matrix
    relu = 4 * wide - gone
    return max(wide + matrix, relu)


def _attention_backward(s: Setting) -> int:
    c, D, N = s.compute_bytes, s.width, s.tokens
    rows = 6 * c * D * N  # gradients of q, k, v; of the output, twice; of the input
    if not s.stored_probabilities:
        return rows + 4 * D * N  # fused kernels add up the queries' gradient in float32
    scores = s.device_batch_size * s.heads * min(s.seq_len, ATTENTION_BLOCK) * s.seq_len
    return rows + scores * (2 * c if s.compiled else 18 if s.casts else 12)


# ---------------------------------------------------------------- optimizer and checkpoint


def _optimizer_step(s: Setting) -> int:
    """Muon's update of the largest stack, and what the ranks send each other."""
    D = s.width
    squares = _up(4 * s.depth, s.ranks) // s.ranks * D * D
    rectangles = _up(s.depth, s.ranks) // s.ranks * 4 * D * D
    n = 2 if s.bf16_hardware else 4
    # Nesterov's gradient; two iterates and the two Gram matrices; the update of the stack before
    step = max(squares * (4 + 4 * n), rectangles * (4 + 2 * n + 2 * n // 4) + squares * n)
    if s.normuon:  # Nesterov's gradient, the update, and three float32 copies of it
        step = max(squares, rectangles) * (4 + n + 3 * 4)
    sent = 4 * padded_params(s) // s.ranks if s.ranks > 1 else 0
    return step + sent


def _checkpoint(s: Setting) -> int:
    """Ranks gather the whole state; copies of it and of the weights are made in RAM.

    On a CPU the heap is still as large as the step has made it, and takes the small copies.
    """
    gathered = 4 * matrix_params(s.depth) + 8 * s.tables if s.ranks > 1 else 0
    if s.device == "cuda":
        return gathered
    return gathered + max(_checkpoint_copies(s), heap_bytes(s) + 12 * s.tables)


def _checkpoint_copies(s: Setting) -> int:
    """Weights and optimizer state."""
    return 8 * matrix_params(s.depth) + 12 * s.tables


# ---------------------------------------------------------------- the process


def rotary_bytes(length: int, width: int, heads: int) -> int:
    return 2 * 4 * length * (width // heads // 2)


def process_bytes(s: Setting, held: int) -> int:
    """What the process takes beside its `held` bytes of tensors."""
    if not s.runtime:
        return 0
    shared = s.ranks > 1
    if s.device == "cpu":
        return CPU_RUNTIME[s.compiled] + CPU_GLOO * shared + int(HEAP_WASTE[s.compiled] * heap_bytes(s))
    return CUDA_CONTEXT + NCCL_BUFFERS * shared + int(CUDA_FRAGMENTATION * held)


def heap_bytes(s: Setting) -> int:
    """Of what the forward pass keeps on a CPU, the tensors that lie in glibc's heap."""
    if s.tight:
        return 0
    c, D, N = s.compute_bytes, s.width, s.tokens
    block = [_norm_input(s)] * 4 + [c * D * N] * 6 + [4 * c * D * N] * 2
    block += [D * D * c] * 4 + [4 * D * D * c] * 2 if s.casts else []
    if s.stored_probabilities:
        rows = s.device_batch_size * s.heads * ATTENTION_BLOCK * c
        block += [rows * min(s.seq_len, at + ATTENTION_BLOCK) for at in range(0, s.seq_len, ATTENTION_BLOCK)]
    inputs = [c * D * N] * s.depth
    kept = block + inputs if s.activation_checkpoint else block * s.depth
    return sum(size for size in kept if size < HEAP_LARGEST)
