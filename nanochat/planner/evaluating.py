"""Plans of evaluations and of the tokenizer, as far as there is something to count. Torch-free.

Counted: the weights, and the engine that answers or scores (chat_eval, base_eval) or one forward pass without
gradient (base_loss). Nothing is trained, so there are no steps; how long it takes is not planned.
Not covered: the tokenizer's memory, which grows with the distinct words of the corpus; corpora and data
sets in the host's memory; the programs that HumanEval runs.
"""

from __future__ import annotations

from nanochat.hardware import Gpu
from nanochat.planner.answering import Answering, cache_bytes, packed_bytes, pass_bytes
from nanochat.planner.memory import Memory, process_bytes, rotary_bytes
from nanochat.planner.plan import Plan, budget_of, precision
from nanochat.planner.setting import Setting
from nanochat.planner.shape import Shape
from nanochat.stages.base_eval import BaseEvalConfig
from nanochat.stages.base_loss import BaseLossConfig
from nanochat.stages.chat_eval import ChatEvalConfig

Evaluation = BaseEvalConfig | BaseLossConfig | ChatEvalConfig
CACHE_NOTE = (
    "the engine gives its cache half of the memory that is free when it starts, so it would do with less: "
    "the sequences wait for each other then"
)


def plan_evaluation(
    cfg: Evaluation, shape: Shape, *, ranks: int, gpu: Gpu | None, budget_bytes: int | None = None
) -> Plan:
    """Memory of a rank that measures a model of `shape`."""
    budget = budget_of(budget_bytes, gpu)
    memory = evaluation_memory(cfg, shape, ranks, gpu, budget)
    notes = ["how long it takes is not planned"]
    if not isinstance(cfg, BaseLossConfig):
        notes.append(CACHE_NOTE)
        if gpu:
            notes.append("CUDA graphs of the engine are not planned")
    return Plan(
        ranks=ranks,
        device=gpu.name if gpu else "CPU",
        notes=tuple(notes),
        vocab_size=shape.vocab_size,
        params=shape.params,
        device_batch_size=cfg.device_batch_size if isinstance(cfg, BaseLossConfig) else None,
        memory=memory,
        budget_bytes=budget,
        fits=None if budget is None else memory.total <= budget,
    )


def evaluation_memory(
    cfg: Evaluation, shape: Shape, ranks: int, gpu: Gpu | None, budget: int | None
) -> Memory:
    """Peak of one rank."""
    s = _setting(cfg, shape, ranks, gpu)
    weights = 4 * shape.params
    buffers = rotary_bytes(shape.context, shape.width, shape.heads)
    if isinstance(cfg, BaseLossConfig):
        activations, loss = _forward(s)
        held = weights + activations + loss + buffers
        return Memory(weights, 0, 0, activations, loss, buffers + process_bytes(s, held))
    free = None if budget is None else max(0, budget - weights)
    scores = isinstance(cfg, BaseEvalConfig)
    engine = Answering(shape, cfg.batch_size, s.device, s.dtype, free_bytes=free, all_logits=scores)
    cache = cache_bytes(engine)
    buffers += packed_bytes(engine) + pass_bytes(engine)
    return Memory(weights, 0, 0, 0, 0, buffers + process_bytes(s, weights + buffers + cache), cache)


def plan_host(vocab_size: int | None) -> Plan:
    """Of a stage that works with text alone, on the CPU."""
    note = "it works on the CPU; its memory grows with the text and is not planned, nor is its time"
    return Plan(ranks=1, device="CPU", notes=(note,), vocab_size=vocab_size)


def _setting(cfg: Evaluation, shape: Shape, ranks: int, gpu: Gpu | None) -> Setting:
    dtype, _ = precision(cfg.dtype, gpu)
    rows = cfg.device_batch_size if isinstance(cfg, BaseLossConfig) else cfg.batch_size
    return Setting(
        shape.depth, shape.vocab_size, shape.context, rows, ranks=ranks, dtype=dtype,
        device="cuda" if gpu else "cpu", compiled=False,
        tight=True,  # nothing is kept from layer to layer that could leave holes in the heap
    )  # fmt: skip


def _forward(s: Setting) -> tuple[int, int]:
    """(activations, loss) of a forward pass that keeps nothing: the MLP's moment, or a chunk of logits."""
    c, D, N = s.compute_bytes, s.width, s.tokens
    ids = 8 * N
    mlp = 11 * c * D * N + ids  # stream, norm, relu and its square …
    head = c * s.vocab_size * D if s.casts else 0
    logits = head + s.chunk_rows * s.vocab_size * (8 + c)
    if mlp > c * D * N + 2 * ids + logits:
        return mlp, 0
    return c * D * N + 2 * ids, logits
