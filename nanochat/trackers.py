"""Where a training's metrics go besides its events: Weights & Biases, TensorBoard, both, or nowhere.

    .venv/bin/pip install wandb tensorboard        neither is part of the service

A tracker never stops a training: a package that is missing, a server that does not answer or a disk that
is full is one warning, and the training goes on without that tracker.
Not covered: ranks other than 0, which have nothing to tell; samples, checkpoints and logs; a process that
is killed loses the last seconds here, never in its events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

PROJECT = "nanochat"
INIT_TIMEOUT_S, LOGIN_TIMEOUT_S, FINISH_TIMEOUT_S, FLUSH_S = 60, 30, 120, 10


class Tracker(Protocol):
    """Takes the metrics of one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None:
        """Hand over what is still on its way."""


class Nothing:
    """The tracker of a run that wants none."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class Wandb:
    """A run of Weights & Biases, its files below `directory`. WANDB_MODE, WANDB_API_KEY … work as usual.

    The curves are drawn over the training's own steps. Every attempt is a run of its own there; those of
    one training share the group `tag`, and their type of job is the stage.
    """

    def __init__(self, name: str, stage: str, tag: str, directory: Path, config: Mapping[str, Any]) -> None:
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",  # the log is ours
            init_timeout=INIT_TIMEOUT_S,
            login_timeout=LOGIN_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
        )
        self._run = wandb.init(
            project=PROJECT,
            name=name,
            group=tag,
            job_type=stage,
            dir=str(directory),
            config=dict(config),
            settings=settings,
        )
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


class TensorBoard:
    """Scalars in event files below `directory`; those of an earlier attempt behind `step` are hidden."""

    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=step + 1, flush_secs=FLUSH_S)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Trackers:
    """Several trackers as one; one that raises is left out from then on, with one warning."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._open: dict[str, Tracker] = {}

    def add(self, name: str, package: str, make: Callable[[], Tracker]) -> None:
        """Open one more, as far as that works."""
        try:
            self._open[name] = make()
        except ImportError as error:
            self._warn(
                f"{name} is on, but its package is missing ({error}): run `pip install {package}`; "
                "training goes on without it"
            )
        except Exception as error:
            self._failed(name, error)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(step, values)
            except Exception as error:
                del self._open[name]
                self._failed(name, error)

    def close(self) -> None:
        while self._open:
            name, tracker = self._open.popitem()
            try:
                tracker.close()
            except Exception as error:
                self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        sentence = " ".join(str(error).split())[:300] or type(error).__name__
        self._warn(f"{name} does not work, training goes on without it: {sentence}")


def open_trackers(
    *,
    wandb: bool,
    tensorboard: bool,
    name: str,
    stage: str,
    tag: str,
    step: int,
    config: Mapping[str, Any],
    base: Path,
    warn: Callable[[str], None],
) -> Tracker:
    """The trackers a config asks for.

    `name` is the run's at Weights & Biases, `tag` its group there; TensorBoard's directory is
    `tensorboard/<stage>/<tag>`. `step` steps are made already.
    """
    if not (wandb or tensorboard):
        return Nothing()
    trackers = Trackers(warn)
    if wandb:
        trackers.add("Weights & Biases", "wandb", lambda: Wandb(name, stage, tag, base, config))
    if tensorboard:
        place = base / "tensorboard" / stage / tag
        trackers.add("TensorBoard", "tensorboard", lambda: TensorBoard(place, step))
    return trackers
