"""A base run on paper: steps, tokens, hours, energy, disk and memory. Torch-free.

Sizes are counted (docs/planner.md), times are predictions (nanochat/planner/speed.py).
Not covered: stages other than base; hosts whose cards differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.hardware import Gpu, cpu_has_bfloat16
from nanochat.planner.memory import Memory, peak_memory, worst_moment
from nanochat.planner.setting import Setting
from nanochat.planner.speed import step_seconds
from nanochat.schedule import flops_per_token, matrix_params, total_params, training_steps
from nanochat.stages.base import BaseConfig

BYTES_PER_TOKEN = 4.3  # of English text at 32k to 64k tokens a vocabulary
PACKED = 2.5  # by parquet's compression
DOWNLOADED = ("fineweb-edu", "climbmix")
POWER_SHARE = 0.85  # of the board's limit, while training


@dataclass(frozen=True)
class Plan:
    """What a run will need. Times in seconds, sizes in bytes, energy in kWh; None: nobody can say."""

    vocab_size: int
    params: int
    flops_per_token: int
    steps: int
    tokens: int
    total_batch_size: int
    device_batch_size: int
    accumulation: int
    ranks: int
    device: str
    memory: Memory
    budget_bytes: int | None
    fits: bool | None
    tokens_per_second: float
    mfu: float | None
    seconds: float
    energy_kwh: float | None
    checkpoint_bytes: int
    disk_bytes: int
    notes: tuple[str, ...]


def setting_of(cfg: BaseConfig, vocab_size: int, ranks: int, gpu: Gpu | None) -> Setting:
    """The part of a config that decides about memory."""
    bf16_hardware = gpu.capability >= (8, 0) if gpu else cpu_has_bfloat16()
    bf16 = cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and bf16_hardware)
    return Setting(
        depth=cfg.depth,
        vocab_size=vocab_size,
        seq_len=cfg.max_seq_len,
        device_batch_size=cfg.device_batch_size,
        ranks=ranks,
        dtype="bfloat16" if bf16 else "float32",
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
    budget = budget_bytes if budget_bytes is not None else gpu.memory_bytes if gpu else None
    step_s = step_seconds(setting, total, gpu)
    per_token = flops_per_token(cfg.depth, vocab_size, cfg.max_seq_len)
    checkpoint = 8 * matrix_params(cfg.depth) + 12 * setting.tables  # weights and state, all float32
    return Plan(
        vocab_size=vocab_size,
        params=total_params(cfg.depth, vocab_size, cfg.value_embeddings),
        flops_per_token=per_token,
        steps=steps,
        tokens=steps * total,
        total_batch_size=total,
        device_batch_size=cfg.device_batch_size,
        accumulation=max(1, total // (setting.tokens * ranks)),
        ranks=ranks,
        device=gpu.name if gpu else "CPU",
        memory=memory,
        budget_bytes=budget,
        fits=None if budget is None else memory.total <= budget,
        tokens_per_second=total / step_s,
        mfu=total / step_s * per_token / (gpu.bf16_flops * ranks) if gpu else None,
        seconds=steps * step_s,
        energy_kwh=gpu.watts * POWER_SHARE * ranks * steps * step_s / 3.6e6 if gpu else None,
        checkpoint_bytes=checkpoint,
        disk_bytes=_disk(cfg, steps, steps * total, vocab_size, checkpoint),
        notes=_notes(cfg, setting, gpu),
    )


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


def _disk(cfg: BaseConfig, steps: int, tokens: int, vocab_size: int, checkpoint_bytes: int) -> int:
    """Checkpoints that stay and one being written; downloaded text and its tokens."""
    made = 1 + (steps - 1) // cfg.save_every if cfg.save_every > 0 else 1
    kept = min(made, cfg.keep_last) if cfg.keep_last else made
    if cfg.keep_last and cfg.keep_every > 0:
        kept += steps // cfg.keep_every
    text = tokens * (BYTES_PER_TOKEN / PACKED + (2 if vocab_size <= 1 << 16 else 4))
    return int(checkpoint_bytes * (kept + 1) + (text if cfg.data in DOWNLOADED else 0))


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
