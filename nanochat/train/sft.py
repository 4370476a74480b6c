"""Stage `sft`: fine-tuning on conversations, loss on the assistant's tokens only.

Conversations of similar length share a micro-batch, so little is computed on padding. Every learned
token of a step counts the same, on whichever rank and in whichever micro-batch it lies.

# Shapes: B conversations, T tokens, N learned tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.artefacts import checkpoint_path, reference
from nanochat.chat import render_conversation
from nanochat.checkpoint import load_model, read_meta
from nanochat.common import World, setup_training
from nanochat.errors import DataError
from nanochat.loss import head_loss
from nanochat.schedule import muon_momentum
from nanochat.stages.sft import SftConfig
from nanochat.tasks import Conversation
from nanochat.tasks.mixture import contents, draw, held_out, parse
from nanochat.tokenizer import Tokenizer
from nanochat.train.batches import Plan, Row, collate, learnable_rows, make_plan
from nanochat.train.first_batch import FirstBatch
from nanochat.train.first_batch import Row as ShownRow
from nanochat.train.loop import Progress, Trainer, Update, checkpoint_to_resume, make_optimizer

VAL_PROBLEMS = 64  # per task
LEARNED_UNIT = 64  # see batches.LENGTH_UNIT


def run(cfg: SftConfig) -> None:
    """Fine-tune to the end of the mixture, or save and leave when asked to stop."""
    with setup_training(cfg, name="sft") as world:
        world.phase("data")
        parse(cfg.tasks, world.base)  # a wrong name fails before anything is loaded
        trainer, resumed = prepare(cfg, world)
        max_tokens = (cfg.max_seq_len or trainer.model.cfg.sequence_len) + 1  # inputs and the last target
        train(trainer, cfg, Mixture(cfg, world, trainer.tokenizer, max_tokens), resumed)


@dataclass
class Mixture:
    """The rows of each epoch, made when it begins; the same ones after a resume."""

    cfg: SftConfig
    world: World
    tokenizer: Tokenizer
    max_tokens: int

    def __post_init__(self) -> None:
        self.parts = parse(self.cfg.tasks, self.world.base)
        self.world.say(contents(self.parts))
        self._epoch = -1
        self._plan: Plan = []

    def rows(self, conversations: Sequence[Conversation]) -> list[Row]:
        rendered = (render_conversation(self.tokenizer, one, self.max_tokens) for one in conversations)
        rows = learnable_rows(rendered)
        if not rows:
            raise DataError(
                f"no conversation has an answer within {self.max_tokens - 1} tokens: raise max_seq_len"
            )
        return rows

    def plan(self, epoch: int) -> Plan:
        """The steps of `epoch`; each is a list of micro-batches over all ranks."""
        if epoch != self._epoch:
            cfg = self.cfg
            conversations = draw(self.parts, cfg.task_examples, cfg.seed + epoch, multi_turn=cfg.multi_turn)
            self._epoch = epoch
            self._plan = make_plan(
                self.rows(conversations),
                micro=self.cfg.device_batch_size * self.world.size,
                per_step=self.cfg.target_examples_per_step,
                seed=self.cfg.seed + epoch,
            )
        return self._plan

    def validation(self) -> list[Row]:
        """Held-out problems of every task with their model answers; nothing when only files are given."""
        if self.cfg.eval_every <= 0:
            return []
        found = held_out(self.parts, VAL_PROBLEMS, self.world.warn)
        return sorted(self.rows(found), key=lambda row: len(row[0])) if found else []


def prepare(cfg: SftConfig, world: World) -> tuple[Trainer, Path | None]:
    """Model and optimizer from the parent checkpoint, or from one of this run; steps are set by `train`."""
    parent = world.agree(checkpoint_path(cfg.mid_checkpoint, world.base, ("mid", "base")))
    tag = cfg.model_tag or world.run_id or f"d{read_meta(parent)['model_config']['n_layer']}"
    resumed = world.agree(checkpoint_to_resume(cfg, world, "sft", tag))
    model, tokenizer, meta = load_model(resumed or parent, world.device, world.dtype)
    if cfg.max_seq_len > model.cfg.sequence_len:
        model.reset_rotary(cfg.max_seq_len)
    ours: dict[str, Any]
    if resumed:
        progress = Progress(**meta["progress"])
        ours = {"parent": meta["parent"], "resumed_from": reference(resumed, world.base)}
    else:
        progress = Progress()
        ours = {"parent": reference(parent, world.base)}
        world.say(f"starting from {parent}")
    optimizer = make_optimizer(model, cfg, resumed)
    return Trainer(world, cfg, "sft", tag, 0, model, tokenizer, optimizer, ours, progress), resumed


def train(trainer: Trainer, cfg: SftConfig, mixture: Mixture, resumed: Path | None) -> None:
    """The loop. The learning rate falls linearly from `init_lr_frac` to 0."""
    world, progress = trainer.world, trainer.progress
    per_epoch = len(mixture.plan(0))
    trainer.steps = cfg.num_iterations if cfg.num_iterations > 0 else per_epoch * cfg.num_epochs
    validation = mixture.validation()
    trainer.begin(resumed, 0)  # too many shapes to compile
    first = FirstBatch(trainer, resumed)
    while trainer.running():
        epoch, at = divmod(progress.step, per_epoch)
        plan = mixture.plan(epoch)
        micro_batches = plan[at % len(plan)]  # fresh dialogues join otherwise: a later epoch may be shorter
        mine = micro_batches[0][world.rank :: world.size]
        first.tell((ShownRow(*row) for row in mine), len(mine))
        learned = sum(sum(mask[1:]) for rows in micro_batches for _, mask in rows)
        # gradients are averaged over ranks: × size makes the average a sum
        share = world.size / learned
        result = trainer.update(
            [partial(micro_loss, trainer, rows[world.rank :: world.size], share) for rows in micro_batches],
            tokens=sum(len(ids) for rows in micro_batches for ids, _ in rows),
            lr_scale=cfg.init_lr_frac * (1 - progress.step / trainer.steps),
            momentum=muon_momentum(progress.step, warmup_steps=50),
            clip=0.0,
        )
        if result is Update.OUT_OF_MEMORY:
            raise torch.OutOfMemoryError("out of memory: use a smaller device_batch_size or max_seq_len")
        if trainer.stopped or progress.step == trainer.steps or trainer.due(cfg.save_every):
            trainer.save()
        if trainer.due(cfg.eval_every):
            validate(trainer, cfg, validation)
    trainer.end()


def micro_loss(trainer: Trainer, rows: list[Row], share: float) -> Tensor:
    """`share` times the summed loss of the learned tokens; the head's gradient is already in its place.

    Only they meet the head. Their number is rounded up (the rest counts for nothing), so that few
    shapes occur.
    """
    model = trainer.model
    x_BT, y_BT = collate(rows, trainer.tokenizer, trainer.world.device, model.cos_TR.size(0))
    kept_N = (y_BT.flatten() >= 0).nonzero().squeeze(1)
    targets_N = y_BT.flatten()[kept_N]
    missing = -kept_N.numel() % LEARNED_UNIT
    kept_N, targets_N = F.pad(kept_N, (0, missing)), F.pad(targets_N, (0, missing), value=-1)
    x_ND = model.hidden(x_BT).flatten(0, 1)[kept_N]
    head_VD = model.lm_head.weight
    weights_N = torch.full((x_ND.size(0),), share, device=x_ND.device)
    return head_loss(x_ND, head_VD, targets_N, weights_N, grad_VD=head_VD.grad)


@torch.no_grad()
def validate(trainer: Trainer, cfg: SftConfig, rows: list[Row]) -> None:
    """Loss on held-out problems, in nats per learned token."""
    world = trainer.world
    if not rows:
        return
    trainer.model.eval()
    nats = tokens = 0.0
    size = cfg.device_batch_size
    batches = [rows[start : start + size] for start in range(0, len(rows), size)][
        : cfg.eval_steps * world.size
    ]
    for batch in batches[world.rank :: world.size]:
        x_BT, y_BT = collate(batch, trainer.tokenizer, world.device, trainer.model.cos_TR.size(0))
        nats += float(trainer.model(x_BT, y_BT, reduction="none").sum())
        tokens += float((y_BT >= 0).sum())
    trainer.model.train()
    nats, tokens = world.sum(nats, tokens)
    trainer.report("sft/val_loss", nats / tokens, "nats per token on held-out problems")
