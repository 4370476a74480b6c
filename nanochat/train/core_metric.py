"""CORE in the middle of a pretraining: `base_eval`'s evaluation of the weights as they are.

It changes nothing of the training but the time it takes: weights, data order and random numbers stay as
they are, and its memory is given back. What keeps CORE from being measured (no bundle, a broken one, no
memory) is said once, and training goes on; an evaluation that is asked to stop leaves its result out.
Not covered: an error in a collective, after which the ranks no longer agree on where they are.
"""

from __future__ import annotations

import gc
from typing import Any

import torch

from nanochat import compiling
from nanochat.artefacts import relative
from nanochat.errors import DataError
from nanochat.evals.bundle import CoreTask
from nanochat.evals.core import EvaluationFailed, Interrupted, core_of, details_of, evaluate, open_bundle
from nanochat.paths import step_dir
from nanochat.train.loop import Trainer

BUNDLE = "eval_bundle"
LANES = 16  # sequences of full length that the cache has room for
NAMES = frozenset({"core/metric", "core/partial"})


class CoreMetric:
    """CORE of one training, `max_per_task` examples of each task; all of them when that is ≤ 0."""

    def __init__(self, trainer: Trainer, max_per_task: int) -> None:
        self._trainer, self._limit = trainer, max_per_task if max_per_task > 0 else -1
        self._tasks: list[CoreTask] = []
        self._problem = ""

    def open(self) -> None:
        """Find the tasks before the training begins, so that a missing bundle is known early. Collective."""
        try:
            self._tasks = open_bundle(BUNDLE, self._trainer.world)
        except DataError as error:
            self._say(f"CORE will not be measured: {error}")

    def measure(self) -> None:
        """`core/metric`, or `core/partial` for fewer tasks, and an `eval` event. Collective."""
        trainer, world = self._trainer, self._trainer.world
        if not self._tasks:
            return
        trainer.settle()  # the checkpoint is safe before anything else can fail
        world.phase("eval", trainer.progress.step)
        rows: dict[str, dict[str, Any]] = {}
        problem = ""
        self._free()
        try:
            with compiling.eagerly():
                rows = evaluate(world, trainer.model, trainer.tokenizer, self._tasks, self._limit, LANES)
        except Interrupted:
            world.say("CORE is left out: asked to stop")
        except EvaluationFailed as error:
            problem = f"CORE could not be measured, training goes on: {error}"
        self._free()  # only here, where no exception holds frames and their tensors
        if problem:
            self._say(problem)
        if rows:
            self._report(rows)
        world.phase("train", trainer.progress.step, steps=trainer.steps)

    def _report(self, rows: dict[str, dict[str, Any]]) -> None:
        trainer, world, step = self._trainer, self._trainer.world, self._trainer.progress.step
        found = core_of(rows)
        details = {**details_of(rows), "core": found, "max_per_task": self._limit}
        place = step_dir(world.base, trainer.stage, trainer.tag, step)
        if place.is_dir():
            details["checkpoint"] = relative(place, world.base)
        values = {label: row["accuracy"] for label, row in rows.items()}
        counts = {label: row["total"] for label, row in rows.items()}
        world.events.emit("eval", step=step, name="core", values=values, counts=counts, details=details)
        for name, value in found.items():
            trainer.report(name, value, f"centred accuracy of {len(rows)} tasks")

    def _free(self) -> None:
        gc.collect()
        if self._trainer.world.device.type == "cuda":
            torch.cuda.empty_cache()

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._trainer.world.warn(problem, self._trainer.progress.step)
