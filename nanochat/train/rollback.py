"""Going back to the last checkpoint after a bad step, and on with other data (PaLM, section 5.1).

The weights, the optimizer and the counters are those of the checkpoint; the data goes on behind the bad
step, so what made it bad is not met again. Not covered: runs without a checkpoint yet; they skip the step.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from nanochat.checkpoint import MODEL, load_optimizer, read_meta, verify
from nanochat.train.loop import Trainer

MAX_ROLLBACKS = 3


def roll_back(trainer: Trainer) -> bool:
    """Make `trainer` what it was at its newest checkpoint. Collective. False: there is none, or no more.

    Raises BrokenCheckpoint when the checkpoint is damaged.
    """
    world, now = trainer.world, trainer.progress
    trainer.settle()
    place: Path | None = world.agree(trainer.newest_own())
    if place is None or now.rollbacks >= MAX_ROLLBACKS:
        return False
    verify(place)
    trainer.model.load_state_dict(load_file(place / MODEL, device=str(world.device)))
    trainer.optimizer.load_state(load_optimizer(place))
    then = read_meta(place)["progress"]
    world.warn(f"going back from step {now.step} to step {then['step']}, and on with other data", now.step)
    for counter in ("step", "tokens", "smooth_loss", "averaged"):
        setattr(now, counter, then[counter])
    now.rollbacks += 1
    now.bad_in_a_row = 0
    trainer.forget_saved()
    world.phase("resume", now.step, steps=trainer.steps)
    return True
