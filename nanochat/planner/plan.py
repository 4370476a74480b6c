"""What a plan says, and the plan of a base run: steps, tokens, hours, energy, disk and memory. Torch-free.

Sizes are counted (docs/planner.md), times are predictions (nanochat/planner/speed.py).
Not covered: hosts whose cards differ. Other stages: tuning.py, evaluating.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.hardware import Gpu, cpu_has_bfloat16
from nanochat.planner.memory import Memory, peak_memory, worst_moment
from nanochat.planner.setting import Setting
from nanochat.planner.shape import shape_of_base
from nanochat.planner.speed import step_seconds
from nanochat.schedule import flops_per_token, matrix_params, training_steps
from nanochat.stages.base import BaseConfig
from nanochat.stages.training import OptimizerConfig

BYTES_PER_TOKEN = 4.3  # of English text at 32k to 64k tokens a vocabulary
PACKED = 2.5  # by parquet's compression
DOWNLOADED = ("fineweb-edu", "climbmix")
POWER_SHARE = 0.85  # of the board's limit, while training


@dataclass(frozen=True)
class Rollouts:
    """How a rank of an rl run answers. Sizes in bytes."""

    answers: int
    """Of a step."""
    lanes: int
    """At once."""
    tokens: int
    """Of a sequence at most: prompt and answer."""
    cache_bytes: int
    """Keys and values of all lanes."""
    ids_bytes: int
    """The answers of a step in the host's memory."""
    answering_bytes: int
    """All that the rank takes while it answers …"""
    learning_bytes: int
    """… and while it learns from the answers."""


@dataclass(frozen=True)
class Plan:
    """What a run will need. Times in seconds, sizes in bytes, energy in kWh; None: nobody can say."""

    ranks: int
    device: str
    notes: tuple[str, ...]
    vocab_size: int | None = None
    params: int | None = None
    flops_per_token: int | None = None
    steps: int | None = None
    tokens: int | None = None
    total_batch_size: int | None = None
    device_batch_size: int | None = None
    accumulation: int | None = None
    memory: Memory | None = None
    budget_bytes: int | None = None
    fits: bool | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    seconds: float | None = None
    energy_kwh: float | None = None
    checkpoint_bytes: int | None = None
    disk_bytes: int | None = None
    rollouts: Rollouts | None = None


@dataclass(frozen=True)
class Speed:
    """Fields of a plan that follow from the seconds of a step."""

    tokens_per_second: float
    mfu: float | None
    seconds: float | None
    energy_kwh: float | None


def speed(s: Setting, total_tokens: int, steps: int | None, gpu: Gpu | None) -> Speed:
    """Of a run of `steps` steps of `total_tokens` tokens each."""
    step_s = step_seconds(s, total_tokens, gpu)
    rate = total_tokens / step_s
    seconds = None if steps is None else steps * step_s
    if gpu is None:
        return Speed(rate, None, seconds, None)
    mfu = rate * flops_per_token(s.depth, s.vocab_size, s.seq_len) / (gpu.bf16_flops * s.ranks)
    energy = None if seconds is None else gpu.watts * POWER_SHARE * s.ranks * seconds / 3.6e6
    return Speed(rate, mfu, seconds, energy)


def budget_of(budget_bytes: int | None, gpu: Gpu | None) -> int | None:
    """Memory a rank may take: what was said, else all of the card's; on a CPU no limit."""
    return budget_bytes if budget_bytes is not None else gpu.memory_bytes if gpu else None


def precision(dtype: str, gpu: Gpu | None) -> tuple[Literal["float32", "bfloat16"], bool]:
    """The compute type, and whether the hardware has bfloat16."""
    hardware = gpu.capability >= (8, 0) if gpu else cpu_has_bfloat16()
    return ("bfloat16" if dtype == "bfloat16" or (dtype == "auto" and hardware) else "float32"), hardware


def setting_of(cfg: BaseConfig, vocab_size: int, ranks: int, gpu: Gpu | None) -> Setting:
    """The part of a config that decides about memory."""
    dtype, bf16_hardware = precision(cfg.dtype, gpu)
    return Setting(
        depth=cfg.depth,
        vocab_size=vocab_size,
        seq_len=cfg.max_seq_len,
        device_batch_size=cfg.device_batch_size,
        ranks=ranks,
        dtype=dtype,
        device="cuda" if gpu else "cpu",
        compiled=cfg.compile != "off",
        activation_checkpoint=cfg.activation_checkpoint,
        value_embeddings=cfg.value_embeddings,
        residual_scalars=cfg.residual_scalars,
        normuon=cfg.normuon,
        bf16_hardware=bf16_hardware,
        saves_while_training=cfg.save_every > 0,
    )


def plan_base(
    cfg: BaseConfig, *, vocab_size: int, ranks: int, gpu: Gpu | None, budget_bytes: int | None = None
) -> Plan:
    """The plan of `cfg` on `ranks` cards of one kind, or as so many ranks on CPU cores with `gpu=None`.

    `budget_bytes`: memory a rank may take; None: all of the card's, on a CPU no limit.
    """
    total = cfg.step_tokens(ranks)
    steps = _steps(cfg, vocab_size, total)
    setting = setting_of(cfg, vocab_size, ranks, gpu)
    memory = peak_memory(setting)
    budget = budget_of(budget_bytes, gpu)
    checkpoint = checkpoint_bytes(setting)
    return Plan(
        ranks=ranks,
        device=gpu.name if gpu else "CPU",
        notes=_notes(cfg, setting, gpu),
        vocab_size=vocab_size,
        params=shape_of_base(cfg, vocab_size).params,
        flops_per_token=flops_per_token(cfg.depth, vocab_size, cfg.max_seq_len),
        steps=steps,
        tokens=steps * total,
        total_batch_size=total,
        device_batch_size=cfg.device_batch_size,
        accumulation=max(1, total // (setting.tokens * ranks)),
        memory=memory,
        budget_bytes=budget,
        fits=None if budget is None else memory.total <= budget,
        checkpoint_bytes=checkpoint,
        disk_bytes=kept_bytes(cfg, steps, checkpoint) + _text_bytes(cfg, steps * total, vocab_size),
        **vars(speed(setting, total, steps, gpu)),
    )


def checkpoint_bytes(s: Setting) -> int:
    """Weights and optimizer state, all float32."""
    return 8 * matrix_params(s.depth) + 12 * s.tables


def _steps(cfg: BaseConfig, vocab_size: int, total_tokens: int) -> int:
    return training_steps(
        num_iterations=cfg.num_iterations,
        target_flops=cfg.target_flops,
        target_param_data_ratio=cfg.target_param_data_ratio,
        depth=cfg.depth,
        vocab_size=vocab_size,
        seq_len=cfg.max_seq_len,
        total_batch_tokens=total_tokens,
    )


def kept_bytes(cfg: OptimizerConfig, steps: int | None, checkpoint: int) -> int:
    """Checkpoints that stay, and one being written. Of an unknown number of steps: as many as `keep_last`."""
    made = 1 if cfg.save_every <= 0 else None if steps is None else 1 + (steps - 1) // cfg.save_every
    kept = cfg.keep_last or 1 if made is None else min(made, cfg.keep_last) if cfg.keep_last else made
    if cfg.keep_last and cfg.keep_every > 0 and steps is not None:
        kept += steps // cfg.keep_every
    return checkpoint * (kept + 1)


def _text_bytes(cfg: BaseConfig, tokens: int, vocab_size: int) -> int:
    """Downloaded text and its tokens."""
    text = tokens * (BYTES_PER_TOKEN / PACKED + (2 if vocab_size <= 1 << 16 else 4))
    return int(text) if cfg.data in DOWNLOADED else 0


def _notes(cfg: BaseConfig, s: Setting, gpu: Gpu | None) -> tuple[str, ...]:
    notes = [f"memory is at its peak in this moment of a step: {worst_moment(s)}"]
    if gpu is None:
        notes.append("hours are for two cores with AVX512-BF16; the first steps of a run tell yours")
        notes.append(
            "resident memory of a CPU run varies by a tenth and more with glibc's heap (docs/planner.md)"
        )
    else:
        notes.append("hours and energy are predicted, not measured, for this card")
    if cfg.compile == "auto":
        notes.append("planned as compiled; short runs stay eager and take somewhat other memory")
    if cfg.fp8:
        notes.append("planned in bfloat16: what fp8 saves is not planned")
    return tuple(notes)
