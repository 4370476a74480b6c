"""What the training stages share: one optimizer step, saving, stopping, events and lines for people."""

from __future__ import annotations

import enum
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat import compiling
from nanochat.artefacts import checkpoint_in, relative
from nanochat.checkpoint import (
    BrokenCheckpoint,
    Saved,
    find_checkpoints,
    load_optimizer,
    read_meta,
    save_checkpoint,
    verify,
)
from nanochat.common import World, has_bfloat16
from nanochat.dataset import corpus_dir
from nanochat.errors import DataError, NanLoss
from nanochat.gpt import GPT
from nanochat.hardware import find_gpu
from nanochat.lineage import code_version, corpus_identity
from nanochat.optim import PLAIN, Optimizer, Recipe
from nanochat.paths import find_artefact, stage_dir, step_dir
from nanochat.stages.training import OptimizerConfig
from nanochat.tokenizer import Tokenizer
from nanochat.trackers import Tracker, open_trackers
from nanochat.train.saver import Finished, Keep, Saver, own_copies
from nanochat.train.tokenizer import emit_checkpoint

PRINT_EVERY_S = 1.0
SMOOTHING = 0.9
SETTLED_STEPS = 20  # before that the loss falls too fast to tell a spike
BAD_IN_A_ROW = 5  # bad steps one after another that end a run


class Update(enum.Enum):
    """How one optimizer step ended."""

    DONE = "done"
    SKIPPED = "skipped"  # loss or gradient were no good: no weight has changed
    OUT_OF_MEMORY = "out of memory"  # on some rank: no weight has changed, the data was not used


@dataclass
class Progress:
    """Counters of a run, saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    smooth_loss: float = 0.0
    averaged: int = 0  # steps in it: fewer than `step` after skipped ones or an import
    seconds: float = 0.0
    skipped: int = 0
    bad_in_a_row: int = 0
    halvings: int = 0
    rollbacks: int = 0

    @property
    def loss(self) -> float:
        """Moving average of the training loss, without the bias towards its start at 0."""
        return self.smooth_loss / (1 - SMOOTHING ** max(1, self.averaged))


@dataclass
class Trainer:
    """One run of a training stage: model, optimizer and where it stands."""

    world: World
    cfg: OptimizerConfig
    stage: str
    tag: str
    steps: int
    model: GPT
    tokenizer: Tokenizer
    optimizer: Optimizer
    meta: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)
    metrics: dict[str, float] = field(default_factory=dict)  # what was measured after the current step
    stopped: bool = False
    _printed_s: float = -math.inf
    _step_s: float = 0.0
    _saved: Saved | None = None
    _saved_step: int = -1
    _saving_step: int = -1

    def __post_init__(self) -> None:
        keep = Keep(self.cfg.keep_last, self.cfg.keep_every, self.cfg.keep_best)
        self._saver = Saver(stage_dir(self.world.base, self.stage) / self.tag, keep)
        self._peak_flops = _peak_flops(self.world)
        self.meta = {**self.meta, "corpus": _corpus(self.cfg, self.world.base), "code": code_version()}

    def begin(self, resumed: Path | None, tokens_per_step: int) -> None:
        """Say what is about to be trained; compile when that is worth it."""
        world, model, progress = self.world, self.model, self.progress
        if world.is_master:
            world.track(self._trackers())
        world.phase("resume" if resumed else "train", progress.step, steps=self.steps)
        world.say(
            f"{self.stage} {self.tag}: {model.num_params():,} parameters, "
            f"{model.flops_per_token() / 1e6:.1f} MFLOP per token, {self.steps} steps, "
            f"{world.size} rank(s) on {world.device.type}, {str(world.dtype).removeprefix('torch.')}"
        )
        if world.is_master and (aside := self._saver.begin(resumed)):
            world.warn(f"checkpoints of an earlier run were here; they are in {aside} now")
        flops = float(model.flops_per_token()) * tokens_per_step * (self.steps - progress.step)
        if compiling.wanted(self.cfg.compile, flops, world.device.type):
            if problem := compiling.switch_on(world.base / "compile_cache", world.device):
                world.warn(problem)
            else:
                world.say("compiling the model: the first step takes longer")
                compiling.compile_blocks(model.blocks)
        if resumed:
            world.say(f"going on from {resumed}, step {progress.step}")
            self._saved_step = progress.step
            if world.is_master:  # the event of this checkpoint may have been lost with the trainer
                self._saved = _saved(resumed)
                known = self._saver.metrics_of(resumed)
                self._announce(self._saved, progress.step, known)
                if resumed == self._saver.newest():  # what is measured of it from now on is added to it
                    self.metrics, self._saving_step = known, progress.step

    def _trackers(self) -> Tracker:
        return open_trackers(
            wandb=not self.cfg.use_dummy_wandb,
            tensorboard=self.cfg.tensorboard,
            name=self.cfg.run or self.tag,
            stage=self.stage,
            tag=self.tag,
            step=self.progress.step,
            config=self.cfg.model_dump(mode="json"),
            base=self.world.base,
            warn=self.world.warn,
        )

    def running(self) -> bool:
        """Whether there is a next step to make."""
        return self.progress.step < self.steps and not self.stopped

    def update(
        self,
        micro_losses: Sequence[Callable[[], Tensor]],
        *,
        tokens: int,
        lr_scale: float,
        momentum: float,
        clip: float,
        decay_scale: float = 1.0,
    ) -> Update:
        """One optimizer step. Collective.

        The mean over the ranks of Σ micro_losses, each a scalar in nats, is the loss per token; `tokens`
        are those of all ranks. When a rank runs out of memory it says so where all ranks meet anyway, so
        none is left waiting. Raises NanLoss after BAD_IN_A_ROW bad steps.
        """
        started = time.monotonic()
        world, optimizer, progress = self.world, self.optimizer, self.progress
        optimizer.zero()
        loss = torch.zeros((), device=world.device)
        failed = False
        try:
            for number, micro_loss in enumerate(micro_losses, 1):
                micro = micro_loss()
                if number == len(micro_losses) and world.device.type == "cuda":
                    optimizer.overlap()
                torch.autograd.backward(micro)
                loss += micro.detach()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            failed = True
        if failed:  # only here, where the exception no longer holds the frames and their tensors
            gc.collect()
            if world.device.type == "cuda":
                torch.cuda.empty_cache()
        optimizer.reduce()
        stats = torch.stack((loss / world.size, optimizer.square_norm())).double()
        flags = torch.tensor((world.stop, failed), dtype=torch.float64, device=world.device)
        mean_loss, square, stops, failures = world.sum_tensor(torch.cat((stats, flags)))
        if failures:
            return Update.OUT_OF_MEMORY
        self.stopped = stops > 0
        progress.step += 1
        self.metrics = {}
        norm = math.sqrt(square)
        problem = self._problem(mean_loss, norm)
        if problem:
            self._skip(problem)
        else:
            progress.bad_in_a_row = 0
            stepping = time.monotonic()
            optimizer.clip(norm, clip)
            optimizer.step(lr_scale, momentum, decay_scale)
            self._step_s = time.monotonic() - stepping
            progress.averaged += 1
            progress.smooth_loss = SMOOTHING * progress.smooth_loss + (1 - SMOOTHING) * mean_loss
        progress.tokens += tokens
        self._tell(mean_loss, norm, tokens, time.monotonic() - started, lr_scale)
        return Update.SKIPPED if problem else Update.DONE

    def _problem(self, loss: float, norm: float) -> str:
        """Why this step must not change the weights; empty when it may."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        limit, progress = self.cfg.spike_nats, self.progress
        if limit > 0 and progress.averaged >= SETTLED_STEPS and loss > progress.loss + limit:
            return f"the loss jumped from {progress.loss:.2f} to {loss:.2f}"
        return ""

    def _skip(self, problem: str) -> None:
        progress = self.progress
        progress.skipped += 1
        progress.bad_in_a_row += 1
        self.world.warn(f"{problem} at step {progress.step}: this step is skipped", progress.step)
        self.world.events.metric(progress.step, train__skipped=progress.skipped)
        if progress.bad_in_a_row >= BAD_IN_A_ROW:
            raise NanLoss(
                f"{problem} at step {progress.step}, after {BAD_IN_A_ROW - 1} other bad steps in a row: "
                "lower the learning rates, or go on from an earlier checkpoint"
            )

    def _tell(self, loss: float, norm: float, tokens: int, dt_s: float, lr_scale: float) -> None:
        progress = self.progress
        progress.seconds += dt_s
        rate = tokens / dt_s
        values = {
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/lrm": lr_scale,
            "train/dt_ms": dt_s * 1000,
            "train/tok_per_sec": rate,
            "train/tokens": progress.tokens,
        }
        if self.world.device.type == "cpu":  # a GPU works on behind the back of this clock
            values["train/opt_ms"] = self._step_s * 1000
        if self._peak_flops:
            values["train/mfu"] = rate * self.model.flops_per_token() / self._peak_flops
        self.world.events.emit("metric", step=progress.step, values=values)
        now = time.monotonic()
        if now - self._printed_s >= PRINT_EVERY_S or progress.step == self.steps:
            self._printed_s = now
            left_s = (self.steps - progress.step) * progress.seconds / progress.step
            self.world.say(
                f"step {progress.step:>{len(str(self.steps))}}/{self.steps}  loss {loss:.4f}  "
                f"smooth {progress.loss:.4f}  {rate:,.0f} tok/s  {dt_s * 1000:.0f} ms  {left_s:.0f} s left"
            )
        self._saved_meanwhile(self._saver.poll())

    def due(self, every: int) -> bool:
        """Whether something done every `every` steps is due now: then, and after the last step."""
        if every <= 0 or self.stopped:
            return False
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def save(self, **state: Any) -> None:
        """Checkpoint after the current step, written in the background. Collective.

        Training waits for copies only; a write that is still under way is waited for first.
        """
        if self._saving_step == self.progress.step:
            return
        world, progress = self.world, self.progress
        self._saving_step = progress.step
        optimizer = self.optimizer.state()
        if not world.is_master:
            return
        self._saved_meanwhile(self._saver.wait())
        metrics = {"train/loss": progress.loss, **self.metrics}
        meta = {
            **self.meta,
            **state,
            "stage": self.stage,
            "step": progress.step,
            "steps": self.steps,
            "config": self.cfg.model_dump(mode="json"),
            "metrics": metrics,
            "progress": dict(vars(progress)),
        }
        place = step_dir(world.base, self.stage, self.tag, progress.step)
        copies, weights = own_copies(optimizer), own_copies(self.model.state_dict())
        write = partial(save_checkpoint, place, self.model, self.tokenizer, meta, copies, weights=weights)
        self._saver.start(progress.step, write)

    def _saved_meanwhile(self, finished: list[Finished]) -> None:
        """Tell of checkpoints that are on disk now."""
        for one in finished:
            self._saved, self._saved_step = one.saved, one.step
            self.world.say(f"saved {one.saved.bytes / 1e6:.1f} MB in {one.seconds:.2f} s to {one.saved.path}")
            self._announce(one.saved, one.step, self._saver.metrics_of(one.saved.path))
            for place in one.removed:
                self.world.say(f"removed {place} (keep_last)")
                gone = relative(place, self.world.base)
                self.world.events.emit("checkpoint", step=int(place.name[5:]), path=gone, removed=True)

    def known(self, resumed: Path) -> set[str] | None:
        """Metrics of the checkpoint that this run goes on from; None when it is another run's. Collective."""
        own = self.world.is_master and resumed == self._saver.newest()
        return self.world.agree(set(self.metrics) if own else None)

    def newest_own(self) -> Path | None:
        """The newest checkpoint this run has saved or goes on from, on rank 0; None elsewhere."""
        return self._saver.newest()

    def forget_saved(self) -> None:
        """The trainer went back: the same step may be saved once more."""
        self._saving_step = -1

    def settle(self) -> None:
        """Wait until no checkpoint is being written. Collective: afterwards all ranks may read it."""
        self._saved_meanwhile(self._saver.wait())
        self.world.barrier()

    def report(self, name: str, value: float, meaning: str) -> None:
        """A measurement after the current step; a checkpoint of this step is announced again with it."""
        self.metrics[name] = value
        step = self.progress.step
        self.world.events.emit("metric", step=step, values={name: value})
        self.world.say(f"step {step}: {name} {value:.4f} ({meaning})")
        if self.world.is_master and self._saving_step == step:
            self._saved_meanwhile(self._saver.wait())
            if self._saved is not None:
                self._saver.measured(self._saved.path, self.metrics)
                self._announce(self._saved, step, self._saver.metrics_of(self._saved.path))

    def _announce(self, saved: Saved, step: int, metrics: dict[str, float]) -> None:
        sizes = {**self.model.cfg.to_dict(), "params": self.model.num_params()}
        emit_checkpoint(self.world, saved, self.stage, step, metrics, sizes)

    def end(self) -> None:
        """Wait for the last checkpoint, then the last event."""
        self.settle()
        peak = max(self.world.gather(self.world.peak_bytes()))
        status = "stopped" if self.stopped else "succeeded"
        self.world.events.emit("metric", step=self.progress.step, values={"mem/peak_bytes": peak})
        self.world.events.emit("end", step=self.progress.step, status=status, peak_bytes=peak)
        self.world.say(f"{status} after step {self.progress.step}, peak memory {peak / 2**30:.2f} GiB a rank")


def _corpus(cfg: OptimizerConfig, base: Path) -> dict[str, Any]:
    """What this run learns from, for the checkpoint's lineage: a corpus of text, or tasks."""
    told = cfg.model_dump(include={"data", "tasks", "task_examples", "replay"})
    text = corpus_identity(corpus_dir(told["data"], base), told["data"]) if told.get("data") else {}
    if "tasks" not in told:
        return text
    found = {"source": told["tasks"], "examples": told["task_examples"]}
    return found | {"replay": text} if told.get("replay") else found


def make_optimizer(
    model: GPT, cfg: OptimizerConfig, resumed: Path | None, recipe: Recipe = PLAIN
) -> Optimizer:
    """The optimizer of `cfg`, with its state from the checkpoint `resumed`."""
    optimizer = Optimizer(
        model,
        matrix_lr=cfg.matrix_lr,
        embedding_lr=cfg.embedding_lr,
        unembedding_lr=cfg.unembedding_lr,
        weight_decay=cfg.weight_decay,
        ns_dtype=torch.bfloat16 if has_bfloat16(model.lm_head.weight.device) else torch.float32,
        recipe=recipe,
    )
    if resumed:
        try:
            optimizer.load_state(load_optimizer(resumed))
        except FileNotFoundError:
            if "imported_from" not in read_meta(resumed):
                raise DataError(f"{resumed} has no optimizer state: start anew without resume_from") from None
    return optimizer


def checkpoint_to_resume(cfg: OptimizerConfig, world: World, stage: str, tag: str) -> Path | None:
    """What `resume_from` names: auto (newest whole checkpoint of the tag, if any), a step, or a path.

    Raises DataError for a step or path that is not there.
    """
    wanted = cfg.resume_from.strip()
    if not wanted or wanted == "-1":
        return None
    of_tag = find_checkpoints(stage_dir(world.base, stage), tag)
    if wanted == "auto":
        for candidate in reversed(of_tag):
            try:
                verify(candidate)
                return candidate
            except BrokenCheckpoint as error:
                world.warn(f"skipping a damaged checkpoint: {error}")
        return None
    if wanted.isdigit():
        place = step_dir(world.base, stage, tag, int(wanted))
        if place not in of_tag:
            have = ", ".join(path.name for path in of_tag) or "none"
            raise DataError(f"there is no checkpoint {place.name} of {tag!r}; there are: {have}")
        return place
    try:
        return checkpoint_in(find_artefact(wanted, world.base), world.base)
    except FileNotFoundError as error:
        raise DataError(f"resume_from: {error}") from None


def _saved(directory: Path) -> Saved:
    size = sum(file.stat().st_size for file in directory.iterdir())
    return Saved(directory, size, verify(directory))


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or the system had no memory left, on a GPU or in RAM."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _peak_flops(world: World) -> float:
    """bf16 FLOP/s of all ranks' GPUs together; 0 where it is unknown."""
    if world.device.type != "cuda":
        return 0.0
    gpu = find_gpu(torch.cuda.get_device_name(world.device))
    return gpu.bf16_flops * world.size if gpu else 0.0
