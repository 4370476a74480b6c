"""Stage `base`: pretraining. Reads top to bottom: inputs, model, loop, end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from nanochat.artefacts import newest, reference
from nanochat.checkpoint import load_model
from nanochat.common import World, setup_training
from nanochat.configurator import ConfigError
from nanochat.dataset import ensure
from nanochat.errors import DataError
from nanochat.evals.bpb import bits_per_byte
from nanochat.gpt import GPT, GPTConfig
from nanochat.loader import Loader, Position, position_of_rank
from nanochat.locks import file_lock
from nanochat.paths import find_artefact, stage_dir
from nanochat.schedule import muon_momentum, training_steps, warmup_stable_decay
from nanochat.stages import Problem
from nanochat.stages.base import BaseConfig
from nanochat.stages.tokenizer import TokenizerConfig
from nanochat.tokenizer import Tokenizer
from nanochat.train import tokenizer as tokenizer_stage
from nanochat.train.loop import Progress, Trainer, checkpoint_to_resume, make_optimizer
from nanochat.train.samples import sample


def run(cfg: BaseConfig) -> None:
    """Train to the end of the horizon, or save and leave when asked to stop."""
    with setup_training(cfg, name="base") as world:
        world.phase("data")
        corpus = ensure(cfg.data, world.base, say=world.say)
        place = tokenizer_place(cfg, world, corpus)
        trainer, position, resumed = prepare(cfg, world, Tokenizer.load(place), place)
        train(trainer, cfg, corpus, position, resumed)


def default_vocab_size(depth: int) -> int:
    """Vocabulary of a tokenizer that a base run trains by itself: small models drown in a large one."""
    return 4096 if depth <= 4 else 16384 if depth <= 8 else 32768 if depth <= 12 else 65536


def tokenizer_place(cfg: BaseConfig, world: World, corpus: Path) -> Path:
    """The tokenizer the user named, else the newest; trained on the corpus when there is none."""
    if cfg.tokenizer:
        try:
            return find_artefact(cfg.tokenizer, world.base)
        except FileNotFoundError as error:
            raise DataError(f"tokenizer {error}") from None
    directory = stage_dir(world.base, "tokenizer")
    with file_lock(world.base / ".tokenizer.lock"):  # the first rank trains it, the others wait and find it
        found = newest(directory)
        if found is None:
            size = default_vocab_size(cfg.depth)
            print(f"there is no tokenizer yet: training one with {size:,} tokens", flush=True)
            own = TokenizerConfig(data=cfg.data, vocab_size=size, model_tag=f"v{size}")
            found = tokenizer_stage.train(own, world, corpus)[0].path
    return world.agree(found)


def prepare(
    cfg: BaseConfig, world: World, tokenizer: Tokenizer, place: Path
) -> tuple[Trainer, Position | None, Path | None]:
    """Model and optimizer, new or resumed; where this rank's data goes on; what was resumed."""
    tag = cfg.model_tag or world.run_id or f"d{cfg.depth}"
    resumed = world.agree(checkpoint_to_resume(cfg, world, "base", tag))
    progress, position = Progress(), None
    meta: dict[str, Any] = {"parent": None}
    if resumed:
        model, tokenizer, old = load_model(resumed, world.device, world.dtype)
        _check_sizes(cfg, model, resumed)
        progress = Progress(**old["progress"])
        position = position_of_rank([rank["loader"] for rank in old["ranks"]], world.rank, world.size)
        meta |= {"tokenizer": old["tokenizer"], "resumed_from": reference(resumed, world.base)}
    else:
        meta["tokenizer"] = reference(place, world.base)
        model = GPT(GPTConfig.from_depth(cfg.depth, tokenizer.vocab_size, cfg.max_seq_len), world.dtype)
        model.init_weights()  # on the CPU: the same weights from a seed on every device
        model.to(world.device)
    model.train()
    model.checkpoint_activations = cfg.activation_checkpoint
    steps = training_steps(
        num_iterations=cfg.num_iterations,
        target_flops=cfg.target_flops,
        target_param_data_ratio=cfg.target_param_data_ratio,
        depth=cfg.depth,
        vocab_size=tokenizer.vocab_size,
        seq_len=cfg.max_seq_len,
        total_batch_tokens=cfg.total_batch_size,
    )
    optimizer = make_optimizer(model, cfg, resumed)
    return (
        Trainer(world, cfg, "base", tag, steps, model, tokenizer, optimizer, meta, progress),
        position,
        resumed,
    )


def train(
    trainer: Trainer, cfg: BaseConfig, corpus: Path, position: Position | None, resumed: Path | None
) -> None:
    """The loop. A checkpoint is saved before anything is evaluated."""
    world, model, optimizer, progress = trainer.world, trainer.model, trainer.optimizer, trainer.progress
    accumulation = cfg.total_batch_size // (cfg.device_batch_size * cfg.max_seq_len * world.size)
    loader = _loader(trainer, cfg, corpus, "train", position)
    loss_of = compiled(model)
    _warn_of_what_is_missing(cfg, world)
    trainer.begin(resumed)
    while trainer.running():
        started = time.monotonic()
        loss = torch.zeros((), device=world.device)
        optimizer.zero()
        for _ in range(accumulation):
            micro_loss = loss_of(*loader.next()) / accumulation
            torch.autograd.backward(micro_loss)
            loss += micro_loss.detach()
        world.mean_(optimizer.flat)
        norm = optimizer.clip(cfg.grad_clip)
        scale = warmup_stable_decay(
            progress.step, trainer.steps, cfg.warmup_ratio, cfg.warmdown_ratio, cfg.final_lr_frac
        )
        optimizer.step(scale, muon_momentum(progress.step))
        total, stops = world.sum(float(loss), world.stop)
        trainer.stopped = stops > 0
        trainer.after_step(total / world.size, cfg.total_batch_size, time.monotonic() - started, norm, scale)
        if trainer.stopped or progress.step == trainer.steps or trainer.due(cfg.save_every):
            trainer.save(loader=loader.position.to_dict())
        if trainer.due(cfg.eval_every):
            validate(trainer, cfg, corpus)
        if trainer.due(cfg.sample_every):
            sample(trainer)
    trainer.end()


def validate(trainer: Trainer, cfg: BaseConfig, corpus: Path) -> float:
    """Bits per byte on the first `eval_tokens` of the validation shard."""
    world = trainer.world
    token_bytes_V = torch.from_numpy(trainer.tokenizer.token_bytes).to(world.device)
    count = max(1, cfg.eval_tokens // (cfg.device_batch_size * cfg.max_seq_len * world.size))
    bpb = bits_per_byte(
        trainer.model, _loader(trainer, cfg, corpus, "val", None), count, token_bytes_V, world
    )
    trainer.report("val/bpb", bpb, "bits per byte on validation text")
    return bpb


def compiled(model: GPT) -> Callable[..., torch.Tensor]:
    """The model, through torch.compile when NANOCHAT_COMPILE=1."""
    if os.environ.get("NANOCHAT_COMPILE") == "1":
        return torch.compile(model, dynamic=False)
    return model


def _loader(
    trainer: Trainer, cfg: BaseConfig, corpus: Path, split: Literal["train", "val"], position: Position | None
) -> Loader:
    world = trainer.world
    return Loader(
        corpus,
        trainer.tokenizer,
        split=split,
        batch=cfg.device_batch_size,
        seq_len=cfg.max_seq_len,
        rank=world.rank,
        size=world.size,
        position=position,
        device=world.device,
    )


def _check_sizes(cfg: BaseConfig, model: GPT, resumed: Path) -> None:
    have = model.cfg
    for field, value, saved in (
        ("depth", cfg.depth, have.n_layer),
        ("max_seq_len", cfg.max_seq_len, have.sequence_len),
    ):
        if value != saved:
            raise ConfigError(
                [
                    Problem(
                        f"/{field}",
                        f"{field} is {value}, but the checkpoint to go on from ({resumed}) has {saved}: "
                        "use that, or another model_tag, or no resume_from",
                        saved,
                    )
                ]
            )


def _warn_of_what_is_missing(cfg: BaseConfig, world: World) -> None:
    if cfg.core_metric_every > 0:
        world.warn("core_metric_every is set, but the CORE evaluation is not part of this version")
    if not cfg.use_dummy_wandb:
        world.warn("use_dummy_wandb is off, but Weights & Biases logging is not part of this version")
