"""Plans of the stages that go on from a checkpoint: mid, sft and rl. Torch-free.

Memory is that of rows of full length. mid fills its rows. sft and rl do not: their conversations are mostly
shorter, and only learned tokens meet the head, so their plan is an upper bound. rl answers first and learns
then; the larger of both moments counts.
Not covered: how many steps an epoch has, which the trainer knows once it has rendered the conversations;
the seconds of sft and rl steps; validation; what the tokens of a mixture take in the host's memory.
"""

from __future__ import annotations

from dataclasses import replace

from nanochat.hardware import Gpu
from nanochat.planner.answering import Answering, cache_bytes
from nanochat.planner.memory import Memory, answering_memory, peak_memory, worst_moment
from nanochat.planner.plan import Plan, Rollouts, budget_of, checkpoint_bytes, kept_bytes, precision, speed
from nanochat.planner.setting import Setting
from nanochat.planner.shape import Shape
from nanochat.schedule import flops_per_token
from nanochat.stages.mid import MidConfig
from nanochat.stages.rl import RlConfig
from nanochat.stages.sft import SftConfig

Tuned = MidConfig | SftConfig | RlConfig
#: tokens of a prompt that rl is planned for: those of our tasks are shorter
PROMPT_TOKENS = 256
ID_BYTES = 48  # of a token of an answer: its id and its mask in lists of Python numbers


def setting_of(cfg: Tuned, shape: Shape, ranks: int, gpu: Gpu | None) -> Setting:
    """The part of a config that decides about the memory of a step."""
    dtype, bf16_hardware = precision(cfg.dtype, gpu)
    compiled = cfg.compile == "on" or (cfg.compile == "auto" and isinstance(cfg, MidConfig))
    return Setting(
        depth=shape.depth,
        vocab_size=shape.vocab_size,
        seq_len=row_tokens(cfg, shape),
        device_batch_size=cfg.device_batch_size,
        ranks=ranks,
        dtype=dtype,
        device="cuda" if gpu else "cpu",
        compiled=compiled,
        value_embeddings=shape.value_embeddings,
        residual_scalars=shape.residual_scalars,
        bf16_hardware=bf16_hardware,
        saves_while_training=cfg.save_every > 0,
    )


def row_tokens(cfg: Tuned, shape: Shape) -> int:
    """Tokens of a row at most."""
    if isinstance(cfg, RlConfig):
        return min(shape.context, PROMPT_TOKENS + cfg.max_new_tokens)
    return cfg.max_seq_len or shape.context


def plan_tuning(
    cfg: Tuned, shape: Shape, *, ranks: int, gpu: Gpu | None, budget_bytes: int | None = None
) -> Plan:
    """The plan of `cfg` for a model of `shape`, on `ranks` cards of one kind or ranks on CPU cores."""
    s = setting_of(cfg, shape, ranks, gpu)
    memory, rollouts = needed(cfg, shape, s)
    budget = budget_of(budget_bytes, gpu)
    steps = steps_of(cfg)
    checkpoint = checkpoint_bytes(s)
    plan = Plan(
        ranks=ranks,
        device=gpu.name if gpu else "CPU",
        notes=_notes(cfg, s, rollouts),
        vocab_size=shape.vocab_size,
        params=shape.params,
        flops_per_token=flops_per_token(shape.depth, shape.vocab_size, s.seq_len),
        steps=steps,
        device_batch_size=cfg.device_batch_size,
        accumulation=_accumulation(cfg, s, rollouts),
        memory=memory,
        budget_bytes=budget,
        fits=None if budget is None else memory.total <= budget,
        checkpoint_bytes=checkpoint,
        disk_bytes=kept_bytes(cfg, steps, checkpoint),
        rollouts=rollouts,
    )
    if not isinstance(cfg, MidConfig):
        return plan
    total = cfg.rows_per_step(s.seq_len) * s.seq_len
    tokens = None if steps is None else steps * total
    return replace(plan, total_batch_size=total, tokens=tokens, **vars(speed(s, total, steps, gpu)))


def needed(cfg: Tuned, shape: Shape, s: Setting) -> tuple[Memory, Rollouts | None]:
    """Memory of a rank at its peak, and how it answers if it does."""
    learning = peak_memory(s)
    if not isinstance(cfg, RlConfig):
        return learning, None
    answers = max(1, cfg.examples_per_step // s.ranks) * cfg.num_samples
    validated = -(-cfg.eval_examples // s.ranks) * cfg.eval_samples if cfg.eval_every > 0 else 0
    lanes = min(cfg.lanes, max(answers, validated))
    engine = Answering(shape, lanes, s.device, s.dtype, tokens=s.seq_len)
    ids = ID_BYTES * answers * s.seq_len
    answering = answering_memory(s, engine)
    if s.device == "cpu":
        learning, answering = (replace(one, buffers=one.buffers + ids) for one in (learning, answering))
    rollouts = Rollouts(
        answers, lanes, s.seq_len, cache_bytes(engine), ids, answering.total, learning.total
    )  # fmt: skip
    return max(learning, answering, key=lambda one: one.total), rollouts


def steps_of(cfg: Tuned) -> int | None:
    """Optimizer steps as far as the config alone says."""
    if cfg.num_iterations > 0:
        return cfg.num_iterations
    return max(1, cfg.task_examples // cfg.examples_per_step) if isinstance(cfg, RlConfig) else None


def _accumulation(cfg: Tuned, s: Setting, rollouts: Rollouts | None) -> int:
    """Micro-batches of a step on each rank; of rl at most."""
    if isinstance(cfg, RlConfig):
        return -(-rollouts.answers // cfg.device_batch_size) if rollouts else 1
    return max(1, rows_of_step(cfg, s.seq_len) // (cfg.device_batch_size * s.ranks))


def rows_of_step(cfg: MidConfig | SftConfig, seq_len: int) -> int:
    """Over all ranks."""
    return cfg.rows_per_step(seq_len) if isinstance(cfg, MidConfig) else cfg.target_examples_per_step


def _notes(cfg: Tuned, s: Setting, rollouts: Rollouts | None) -> tuple[str, ...]:
    answering = rollouts is not None and rollouts.answering_bytes > rollouts.learning_bytes
    moment = "the model answers" if answering else worst_moment(s)
    notes = [f"memory is at its peak in this moment of a step: {moment}"]
    if isinstance(cfg, MidConfig):
        if cfg.num_iterations <= 0:
            notes.append("the steps of an epoch depend on the tokens of the mixture: the trainer counts them")
        notes.append("speed and energy are predicted, not measured")
        return tuple(notes)
    if isinstance(cfg, RlConfig):
        notes.append(
            f"planned for prompts of {PROMPT_TOKENS} tokens and answers of {cfg.max_new_tokens} at most; "
            "answers that are as good as their group's mean are left out of the micro-batches"
        )
        if s.device == "cuda":
            notes.append("CUDA graphs of the engine are not planned")
    else:
        notes.append("an upper bound: every conversation as long as a row may be, all of it learned")
        if cfg.num_iterations <= 0:
            most = cfg.num_epochs * max(1, cfg.task_examples // cfg.target_examples_per_step)
            notes.append(
                f"generated tasks give at most {most:,} steps (multi_turn joins conversations); files and "
                "data sets add their own"
            )
    notes.append("hours are not planned: the lengths of conversations and answers decide about them")
    return tuple(notes)
