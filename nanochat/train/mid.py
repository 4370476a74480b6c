"""Stage `mid`: conversations as one stream of tokens, learned like text. One model, one epoch.

The stream is cut into rows that are numbered as in pretraining: which rows a step reads depends on its
number alone, not on the ranks or the micro-batch, so a resume needs one number.
Text of the pretraining corpus may lie between the conversations (`replay`): rehearsal, Robins 1995.
Not covered: mixtures larger than memory (4 bytes a token stay, and the conversations while they are made).

# Shapes: B rows, T tokens, N = B·T.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanochat.artefacts import checkpoint_path, reference
from nanochat.chat import render_conversation
from nanochat.checkpoint import load_model, read_meta
from nanochat.common import World, setup_training
from nanochat.configurator import ConfigError
from nanochat.dataset import ensure
from nanochat.errors import DataError
from nanochat.evals.bpb import bits_per_byte
from nanochat.gpt import GPT
from nanochat.loader import Loader
from nanochat.loss import IGNORE, head_loss
from nanochat.schedule import muon_momentum, stable_decay
from nanochat.stages.mid import MidConfig
from nanochat.tasks import Conversation
from nanochat.tasks.mixture import contents, draw, held_out, parse
from nanochat.tokenizer import Tokenizer
from nanochat.tokens import Ids, TokenStream
from nanochat.train.base import halve
from nanochat.train.first_batch import MAX_ROWS, FirstBatch, rows_of
from nanochat.train.loop import Progress, Trainer, Update, checkpoint_to_resume, make_optimizer

VAL_PROBLEMS = 64  # per task
LONGEST = 1 << 24  # tokens of one conversation: none is cut, it goes on in the next row
_LEARNED = 1 << 31  # the bit of a stored token that says whether it is learned


class Conversations:
    """Tokens of all conversations, one after another and then from the start: what Loader reads.

    `masked`: a read gives −(id + 1) for a token that is not to be learned.
    """

    def __init__(
        self, conversations: Iterable[Conversation], tokenizer: Tokenizer, *, masked: bool = False
    ) -> None:
        found, starts = array("I"), array("Q")
        for conversation in conversations:
            starts.append(len(found))
            ids, mask = render_conversation(tokenizer, conversation, LONGEST)
            found.extend(id | _LEARNED if learned else id for id, learned in zip(ids, mask, strict=True))
        self._tokens = np.frombuffer(found, dtype=np.uint32) if found else np.zeros(0, np.uint32)
        self._starts = np.array(starts, dtype=np.int64)
        self._masked = masked

    def mix(self, documents: Sequence[Ids], seed: int) -> None:
        """Put documents between the conversations, in an order drawn by `seed`; every token is learned."""
        pieces = [
            *np.split(self._tokens, self._starts[1:]),
            *(ids.astype(np.uint32) | np.uint32(_LEARNED) for ids in documents),
        ]
        random.Random(seed).shuffle(pieces)
        self._tokens = np.concatenate(pieces)

    def total(self) -> int:
        return len(self._tokens)

    def read(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """`count` tokens from number `start` on, as int64. Raises DataError when there are none."""
        if not len(self._tokens):
            raise DataError("the mixture holds no token")
        stored = self._tokens[np.arange(start, start + count) % len(self._tokens)]
        ids = (stored & np.uint32(_LEARNED - 1)).astype(np.int64)
        return np.where(stored & np.uint32(_LEARNED), ids, -1 - ids) if self._masked else ids

    def learned(self, start: int, count: int) -> int:
        """How many of `count` tokens from number `start` on are learned."""
        return int((self.read(start, count) >= 0).sum()) if self._masked else count


def run(cfg: MidConfig) -> None:
    """Train to the end of the epoch, or save and leave when asked to stop."""
    with setup_training(cfg, name="mid") as world:
        world.phase("data")
        parts = parse(cfg.tasks, world.base)  # a wrong name fails before anything is loaded
        trainer, data, resumed = prepare(cfg, world)
        world.say(contents(parts))
        drawn = draw(parts, cfg.task_examples, cfg.seed, multi_turn=cfg.multi_turn)
        stream = Conversations(drawn, trainer.tokenizer, masked=cfg.learn == "assistant")
        if cfg.replay:
            stream.mix(text(cfg, trainer, round(cfg.replay * stream.total())), cfg.seed)
        validation = held_out(parts, VAL_PROBLEMS, world.warn) if cfg.eval_every > 0 else []
        train(trainer, cfg, stream, Conversations(validation, trainer.tokenizer), data, resumed)


def text(cfg: MidConfig, trainer: Trainer, count: int) -> list[Ids]:
    """Documents of the corpus with `count` tokens together: the first ones, as pretraining meets them."""
    corpus = ensure(cfg.data, trainer.world.base, say=trainer.world.say)
    stream = TokenStream(corpus, trainer.tokenizer, split="train")
    ids = stream.read(0, count)
    trainer.world.say(f"{count:,} tokens of {cfg.data} between the conversations")
    return np.split(ids, np.flatnonzero(ids[1:] == trainer.tokenizer.bos) + 1)


def prepare(cfg: MidConfig, world: World) -> tuple[Trainer, dict[str, int], Path | None]:
    """Model and optimizer from the base checkpoint or one of this run; where the data goes on; what was
    resumed."""
    parent = world.agree(checkpoint_path(cfg.base_checkpoint, world.base, ("base",)))
    tag = cfg.model_tag or world.run_id or f"d{read_meta(parent)['model_config']['n_layer']}"
    resumed = world.agree(checkpoint_to_resume(cfg, world, "mid", tag))
    model, tokenizer, meta = load_model(resumed or parent, world.device, world.dtype)
    model.train()
    seq_len = cfg.max_seq_len or model.cfg.sequence_len
    if found := cfg.batch_problems(world.size, seq_len):
        raise ConfigError(found)
    if seq_len > model.cfg.sequence_len:
        model.reset_rotary(seq_len)
    ours: dict[str, Any]
    data, progress = {"row": 0}, Progress()
    if resumed:
        data, progress = meta["data"], Progress(**meta["progress"])
        ours = {"parent": meta["parent"], "resumed_from": reference(resumed, world.base)}
    else:
        ours = {"parent": reference(parent, world.base)}
        world.say(f"starting from {parent}")
    optimizer = make_optimizer(model, cfg, resumed)
    return Trainer(world, cfg, "mid", tag, 0, model, tokenizer, optimizer, ours, progress), data, resumed


def train(
    trainer: Trainer, cfg: MidConfig, stream: Conversations, held_out: Conversations, data: dict[str, int],
    resumed: Path | None,
) -> None:  # fmt: skip
    """The loop, as in pretraining."""
    world, progress = trainer.world, trainer.progress
    T = cfg.max_seq_len or trainer.model.cfg.sequence_len
    rows = cfg.rows_per_step(T)
    B = cfg.device_batch_size >> progress.halvings  # a resume need not run out of memory once more
    accumulation = rows // (B * world.size)
    epoch = max(1, stream.total() // (rows * T))
    trainer.steps = cfg.num_iterations if cfg.num_iterations > 0 else epoch
    world.say(f"{stream.total():,} tokens of conversations: {epoch} steps an epoch")
    if stream.total() < rows * T:
        world.warn(f"the mixture is smaller than one step of {rows * T:,} tokens: some of it is seen twice")
    row = data["row"]
    if data.get("tokens", stream.total()) != stream.total():
        world.warn("the mixture is not the one this run began with: rows are other ones now")
    loader = _loader(stream, world, B, T, row)
    trainer.begin(resumed, rows * T)
    FirstBatch(trainer, resumed).tell(rows_of(loader.peek(MAX_ROWS)), B)
    while trainer.running():
        learned = stream.learned(row * T + 1, rows * T)
        # gradients are averaged over ranks: × size makes the average a sum
        result = trainer.update(
            [partial(micro_loss, trainer.model, loader, world.size / max(1, learned))] * accumulation,
            tokens=rows * T,
            lr_scale=cfg.init_lr_frac * stable_decay(progress.step / trainer.steps),
            momentum=muon_momentum(progress.step),
            clip=0.0,
        )
        if result is Update.OUT_OF_MEMORY:
            B, accumulation = halve(trainer, B, accumulation)
            loader = _loader(stream, world, B, T, row)  # the same rows once more
            continue
        row = loader.row
        if trainer.stopped or progress.step == trainer.steps or trainer.due(cfg.save_every):
            trainer.save(data={"row": row, "tokens": stream.total()})
        if trainer.due(cfg.eval_every) and held_out.total():
            validate(trainer, held_out, B, T)
    trainer.end()


def micro_loss(model: GPT, loader: Loader, share: float) -> Tensor:
    """`share` times the summed loss of a micro-batch; the head's gradient is already in its place."""
    x_BT, y_BT = loader.next()
    x_BT = torch.where(x_BT < 0, -1 - x_BT, x_BT)
    y_N = y_BT.flatten().clamp_min(IGNORE)
    x_ND = model.hidden(x_BT).flatten(0, 1)
    head_VD = model.lm_head.weight
    weights_N = torch.full((x_ND.size(0),), share, device=x_ND.device)
    return head_loss(x_ND, head_VD, y_N, weights_N, grad_VD=head_VD.grad)


def validate(trainer: Trainer, held_out: Conversations, B: int, T: int) -> None:
    """Bits per byte of held-out problems with their model answers."""
    world = trainer.world
    trainer.settle()  # the checkpoint is safe before anything else can fail
    token_bytes_V = torch.from_numpy(trainer.tokenizer.token_bytes).to(world.device)
    rows = max(1, held_out.total() // (T * world.size))  # of each rank
    B = min(B, rows)
    bpb = bits_per_byte(trainer.model, _loader(held_out, world, B, T), rows // B, token_bytes_V, world)
    trainer.report("val/bpb", bpb, "bits per byte on held-out conversations")


def _loader(stream: Conversations, world: World, B: int, T: int, row: int = 0) -> Loader:
    return Loader(stream, batch=B, seq_len=T, row=row, rank=world.rank, size=world.size, device=world.device)
