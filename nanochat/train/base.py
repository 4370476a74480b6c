"""Stage `base`: pretraining. Reads top to bottom: inputs, model, loop, end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from nanochat import fp8
from nanochat.artefacts import newest, reference
from nanochat.checkpoint import load_model
from nanochat.common import World, cores, setup_training
from nanochat.configurator import ConfigError
from nanochat.dataset import ensure
from nanochat.errors import DataError
from nanochat.evals.bpb import bits_per_byte
from nanochat.gpt import GPT, GPTConfig
from nanochat.loader import Loader
from nanochat.locks import file_lock
from nanochat.loss import head_loss
from nanochat.optim import Recipe
from nanochat.paths import find_artefact, stage_dir
from nanochat.schedule import default_vocab_size, momentum_at, training_steps, warmup_stable_decay
from nanochat.stages import Problem
from nanochat.stages.base import BaseConfig
from nanochat.stages.tokenizer import TokenizerConfig
from nanochat.tokenizer import Tokenizer
from nanochat.tokens import TokenStream
from nanochat.train import tokenizer as tokenizer_stage
from nanochat.train.core_metric import NAMES, CoreMetric
from nanochat.train.first_batch import MAX_ROWS, FirstBatch, rows_of
from nanochat.train.loop import Progress, Trainer, Update, checkpoint_to_resume, make_optimizer
from nanochat.train.rollback import roll_back
from nanochat.train.samples import sample

MAX_HALVINGS = 3


def run(cfg: BaseConfig) -> None:
    """Train to the end of the horizon, or save and leave when asked to stop."""
    with setup_training(cfg, name="base") as world:
        world.phase("data")
        corpus = ensure(cfg.data, world.base, say=world.say)
        place = tokenizer_place(cfg, world, corpus)
        trainer, data, resumed = prepare(cfg, world, Tokenizer.load(place), place)
        train(trainer, cfg, corpus, data, resumed)


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
) -> tuple[Trainer, dict[str, Any], Path | None]:
    """Model and optimizer, new or resumed; where the data goes on; what was resumed."""
    tag = cfg.model_tag or world.run_id or f"d{cfg.depth}"
    resumed = world.agree(checkpoint_to_resume(cfg, world, "base", tag))
    progress, data = Progress(), {"row": 0, "lengths": []}
    meta: dict[str, Any] = {"parent": None}
    if resumed:
        model, tokenizer, old = load_model(resumed, world.device, world.dtype)
        _check_sizes(cfg, model, resumed)
        progress, data = Progress(**old["progress"]), old["data"]
        meta |= {"tokenizer": old["tokenizer"], "resumed_from": reference(resumed, world.base)}
    else:
        meta["tokenizer"] = reference(place, world.base)
        model = GPT(model_config(cfg, tokenizer.vocab_size), world.dtype)
        model.init_weights()  # on the CPU: the same weights from a seed on every device
        model.to(world.device)
    model.train()
    model.checkpoint_activations = cfg.activation_checkpoint
    if cfg.fp8:
        _check_fp8(world)
        model.train_in_fp8()
    steps = training_steps(
        num_iterations=cfg.num_iterations,
        target_flops=cfg.target_flops,
        target_param_data_ratio=cfg.target_param_data_ratio,
        depth=cfg.depth,
        vocab_size=tokenizer.vocab_size,
        seq_len=cfg.max_seq_len,
        total_batch_tokens=cfg.step_tokens(world.size),
    )
    optimizer = make_optimizer(model, cfg, resumed, recipe(cfg, world.size))
    return Trainer(world, cfg, "base", tag, steps, model, tokenizer, optimizer, meta, progress), data, resumed


def model_config(cfg: BaseConfig, vocab_size: int) -> GPTConfig:
    """Sizes and options of the model that `cfg` describes."""
    return GPTConfig.from_depth(
        cfg.depth,
        vocab_size,
        cfg.max_seq_len,
        rope_theta=cfg.rope_base,
        residual_scalars=cfg.residual_scalars,
        value_embeddings=cfg.value_embeddings,
    )


def recipe(cfg: BaseConfig, ranks: int) -> Recipe:
    """How the optimizer differs from plain Muon."""
    factor = (cfg.step_tokens(ranks) / cfg.lr_batch_tokens) ** 0.5 if cfg.lr_batch_tokens else 1.0
    return Recipe(cfg.polar_express, cfg.normuon, cfg.matrix_weight_decay, factor)


def train(
    trainer: Trainer, cfg: BaseConfig, corpus: Path, data: dict[str, Any], resumed: Path | None
) -> None:
    """The loop. A checkpoint is saved before anything is evaluated."""
    world, progress = trainer.world, trainer.progress
    B = cfg.device_batch_size >> progress.halvings  # a resume need not run out of memory once more
    tokens = cfg.step_tokens(world.size)
    accumulation = tokens // (B * cfg.max_seq_len * world.size)
    packed = cfg.packing == "bos"
    stream = _stream(
        trainer, cfg, corpus, "train", row=cfg.max_seq_len + 1 if packed else 0, lengths=data["lengths"]
    )
    row = int(data["row"])
    loader = _loader(trainer, cfg, stream, B, row, packed=packed)
    trainer.begin(resumed, tokens)
    FirstBatch(trainer, resumed).tell(rows_of(loader.peek(MAX_ROWS)), B)
    core = CoreMetric(trainer, cfg.core_metric_max_per_task)
    if cfg.core_metric_every > 0:
        core.open()
    if resumed and (known := trainer.known(resumed)) is not None:
        measure(trainer, cfg, corpus, core, known)  # it may have been killed before it had measured all
    while trainer.running():
        lr_scale = warmup_stable_decay(
            progress.step, trainer.steps, cfg.warmup_ratio, cfg.warmdown_ratio, cfg.final_lr_frac
        )
        share = 1 / (accumulation * B * cfg.max_seq_len)
        result = trainer.update(
            [partial(micro_loss, trainer.model, loader, share)] * accumulation,
            tokens=tokens,
            lr_scale=lr_scale,
            momentum=momentum_at(progress.step, trainer.steps, cfg.warmdown_ratio, cfg.momentum_final),
            clip=cfg.grad_clip,
            decay_scale=1 - progress.step / trainer.steps,
        )
        if result is Update.OUT_OF_MEMORY:
            B, accumulation = halve(trainer, B, accumulation)
            loader = _loader(trainer, cfg, stream, B, row, packed=packed)  # the same rows once more
            continue
        row = loader.row
        if result is Update.SKIPPED and cfg.bad_steps == "rollback" and not trainer.stopped:
            roll_back(trainer)
        if trainer.stopped or progress.step == trainer.steps or trainer.due(cfg.save_every):
            trainer.save(data={"row": row, "lengths": stream.lengths})
        measure(trainer, cfg, corpus, core)
        if trainer.due(cfg.sample_every):
            sample(trainer)
    trainer.end()


def measure(
    trainer: Trainer, cfg: BaseConfig, corpus: Path, core: CoreMetric, known: Collection[str] = ()
) -> None:
    """What is to be measured after the current step and is not `known` yet."""
    if trainer.due(cfg.eval_every) and "val/bpb" not in known:
        validate(trainer, cfg, corpus)
    if trainer.due(cfg.core_metric_every) and not NAMES.intersection(known):
        core.measure()


def micro_loss(model: GPT, loader: Loader, share: float) -> torch.Tensor:
    """`share` times the summed loss of a micro-batch; the head's gradient is already in its place."""
    x_BT, y_BT = loader.next()
    x_ND = model.hidden(x_BT).flatten(0, 1)
    head_VD = model.lm_head.weight
    weights_N = torch.full((x_ND.size(0),), share, device=x_ND.device)
    return head_loss(x_ND, head_VD, y_BT.flatten(), weights_N, grad_VD=head_VD.grad)


def halve(trainer: Trainer, B: int, accumulation: int) -> tuple[int, int]:
    """Half the rows at a time, twice as often: the same global batch. Raises OutOfMemoryError at the end."""
    progress = trainer.progress
    if B % 2 or progress.halvings >= MAX_HALVINGS:
        raise torch.OutOfMemoryError(
            f"out of memory with device_batch_size {B} after {progress.halvings} halvings: "
            "use a smaller depth or max_seq_len, or activation_checkpoint"
        )
    progress.halvings += 1
    trainer.world.warn(
        f"out of memory at step {progress.step + 1}: going on with device_batch_size {B // 2} and "
        f"{accumulation * 2} micro-batches a step, the same total batch",
        progress.step,
    )
    return B // 2, accumulation * 2


def validate(trainer: Trainer, cfg: BaseConfig, corpus: Path) -> float:
    """Bits per byte on the first `eval_tokens` of the validation shard, each token once at most."""
    world = trainer.world
    trainer.settle()  # the checkpoint is safe before anything else can fail
    token_bytes_V = torch.from_numpy(trainer.tokenizer.token_bytes).to(world.device)
    stream = _stream(trainer, cfg, corpus, "val")
    B = cfg.device_batch_size >> trainer.progress.halvings
    unit = B * cfg.max_seq_len * world.size
    count = max(1, min(cfg.eval_tokens, stream.total()) // unit)
    loader = _loader(trainer, cfg, stream, B)
    bpb = bits_per_byte(trainer.model, loader, count, token_bytes_V, world)
    trainer.report("val/bpb", bpb, "bits per byte on validation text")
    return bpb


def _stream(
    trainer: Trainer,
    cfg: BaseConfig,
    corpus: Path,
    split: Literal["train", "val"],
    row: int = 0,
    lengths: Sequence[int] = (),
) -> TokenStream:
    threads = max(1, min(4, cores() // trainer.world.local_size - 1))
    return TokenStream(corpus, trainer.tokenizer, split=split, row=row, lengths=lengths, threads=threads)


def _loader(
    trainer: Trainer, cfg: BaseConfig, stream: TokenStream, B: int, row: int = 0, packed: bool = False
) -> Loader:
    world = trainer.world
    return Loader(
        stream,
        batch=B,
        seq_len=cfg.max_seq_len,
        row=row,
        rank=world.rank,
        size=world.size,
        packed=packed,
        device=world.device,
    )


def _check_sizes(cfg: BaseConfig, model: GPT, resumed: Path) -> None:
    have = model.cfg
    for field, value, saved in (
        ("depth", cfg.depth, have.n_layer),
        ("max_seq_len", cfg.max_seq_len, have.sequence_len),
        ("rope_base", cfg.rope_base, have.rope_theta),
        ("residual_scalars", cfg.residual_scalars, have.residual_scalars),
        ("value_embeddings", cfg.value_embeddings, have.value_embeddings),
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


def _check_fp8(world: World) -> None:
    if not fp8.available(world.device):
        what = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "a CPU"
        raise ConfigError(
            [
                Problem(
                    "/fp8", f"fp8 needs an NVIDIA GPU of sm_89 or later, here is {what}: leave it out", False
                )
            ]
        )
