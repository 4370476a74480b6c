"""What the training stages share: saving, stopping, metric events and the lines a person reads."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.artefacts import checkpoint_in
from nanochat.checkpoint import (
    BrokenCheckpoint,
    Saved,
    find_checkpoints,
    load_optimizer,
    read_meta,
    save_checkpoint,
    verify,
)
from nanochat.common import World
from nanochat.errors import DataError, NanLoss
from nanochat.gpt import GPT
from nanochat.optim import Optimizer
from nanochat.paths import find_artefact, stage_dir, step_dir
from nanochat.stages.training import OptimizerConfig
from nanochat.tokenizer import Tokenizer
from nanochat.train.tokenizer import emit_checkpoint

PRINT_EVERY_S = 1.0
SMOOTHING = 0.9


@dataclass
class Progress:
    """Counters of a run, saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    smooth_loss: float = 0.0
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """Moving average of the training loss, without the bias towards its start at 0."""
        return self.smooth_loss / (1 - SMOOTHING ** max(1, self.step))


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
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    _printed_s: float = -math.inf
    _saved: Saved | None = None
    _saved_step: int = -1
    _first_step: int = 0

    def begin(self, resumed: Path | None) -> None:
        """Say what is about to be trained."""
        world, model, progress = self.world, self.model, self.progress
        self._first_step = progress.step
        world.phase("resume" if resumed else "train", progress.step, steps=self.steps)
        world.say(
            f"{self.stage} {self.tag}: {model.num_params():,} parameters, "
            f"{model.flops_per_token() / 1e6:.1f} MFLOP per token, {self.steps} steps, "
            f"{world.size} rank(s) on {world.device.type}, {str(world.dtype).removeprefix('torch.')}"
        )
        if resumed:
            world.say(f"going on from {resumed}, step {progress.step}")
            self._saved_step = progress.step
            if world.is_master:  # the event of this checkpoint may have been lost with the trainer
                self._saved = _saved(resumed)
                self._announce(self._saved, read_meta(resumed)["metrics"])

    def running(self) -> bool:
        """Whether there is a next step to make."""
        return self.progress.step < self.steps and not self.stopped

    def after_step(self, loss: float, tokens: int, dt_s: float, grad_norm: float, lr_scale: float) -> None:
        """Count the step just made. Collective; sums are over all ranks, `loss` in nats per token.

        Raises NanLoss.
        """
        progress = self.progress
        progress.step += 1
        progress.tokens += tokens
        progress.seconds += dt_s
        if not math.isfinite(loss):
            raise NanLoss(f"the loss is {loss} at step {progress.step}: lower the learning rates")
        progress.smooth_loss = SMOOTHING * progress.smooth_loss + (1 - SMOOTHING) * loss
        rate = tokens / dt_s
        self.world.events.metric(
            progress.step,
            train__loss=loss,
            train__grad_norm=grad_norm,
            train__lrm=lr_scale,
            train__dt_ms=dt_s * 1000,
            train__tok_per_sec=rate,
            train__tokens=progress.tokens,
        )
        now = time.monotonic()
        if now - self._printed_s >= PRINT_EVERY_S or progress.step == self.steps:
            self._printed_s = now
            left_s = (self.steps - progress.step) * progress.seconds / progress.step
            self.world.say(
                f"step {progress.step:>{len(str(self.steps))}}/{self.steps}  loss {loss:.4f}  "
                f"smooth {progress.loss:.4f}  {rate:,.0f} tok/s  {dt_s * 1000:.0f} ms  {left_s:.0f} s left"
            )

    def due(self, every: int) -> bool:
        """Whether something done every `every` steps is due now: then, and after the last step."""
        if every <= 0 or self.stopped:
            return False
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def save(self, **state: Any) -> None:
        """Checkpoint after the current step. Collective; `state` may differ per rank and is gathered."""
        if self._saved_step == self.progress.step:
            return
        world, progress = self.world, self.progress
        ranks = world.gather(state)
        if world.is_master:
            metrics = {"train/loss": progress.loss, **self.metrics}
            meta = {
                **self.meta,
                "stage": self.stage,
                "step": progress.step,
                "steps": self.steps,
                "config": self.cfg.model_dump(mode="json"),
                "metrics": metrics,
                "progress": vars(progress),
                "ranks": ranks,
            }
            place = step_dir(world.base, self.stage, self.tag, progress.step)
            started = time.monotonic()
            saved = save_checkpoint(place, self.model, self.tokenizer, meta, self.optimizer.state())
            took_s = time.monotonic() - started
            world.say(f"saved {saved.bytes / 1e6:.1f} MB in {took_s:.2f} s to {place}")
            self._saved = saved
            self._announce(saved, metrics)
        self._saved_step = progress.step
        world.barrier()

    def report(self, name: str, value: float, meaning: str) -> None:
        """A measurement after the current step; a checkpoint of this step is announced again with it."""
        self.metrics[name] = value
        step = self.progress.step
        self.world.events.emit("metric", step=step, values={name: value})
        self.world.say(f"step {step}: {name} {value:.4f} ({meaning})")
        if self._saved is not None and self._saved_step == step:
            self._announce(self._saved, {"train/loss": self.progress.loss, **self.metrics})

    def _announce(self, saved: Saved, metrics: dict[str, float]) -> None:
        sizes = {**self.model.cfg.to_dict(), "params": self.model.num_params()}
        emit_checkpoint(self.world, saved, self.stage, self.progress.step, metrics, sizes)

    def end(self) -> None:
        """The last event."""
        peak = max(self.world.gather(self.world.peak_bytes()))
        status = "stopped" if self.stopped else "succeeded"
        self.world.events.emit("metric", step=self.progress.step, values={"mem/peak_bytes": peak})
        self.world.events.emit("end", step=self.progress.step, status=status, peak_bytes=peak)
        self.world.say(f"{status} after step {self.progress.step}, peak memory {peak / 2**30:.2f} GiB a rank")


def make_optimizer(model: GPT, cfg: OptimizerConfig, resumed: Path | None) -> Optimizer:
    """The optimizer of `cfg`, with its state from the checkpoint `resumed`."""
    optimizer = Optimizer(
        model,
        matrix_lr=cfg.matrix_lr,
        embedding_lr=cfg.embedding_lr,
        unembedding_lr=cfg.unembedding_lr,
        weight_decay=cfg.weight_decay,
    )
    if resumed:
        try:
            optimizer.load_state(load_optimizer(resumed))
        except FileNotFoundError:
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
        return checkpoint_in(find_artefact(wanted, world.base))
    except FileNotFoundError as error:
        raise DataError(f"resume_from: {error}") from None


def _saved(directory: Path) -> Saved:
    size = sum(file.stat().st_size for file in directory.iterdir())
    return Saved(directory, size, verify(directory))
