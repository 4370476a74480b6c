"""`python -m nanochat.bench_overheads`: what saving, telling and reading cost of a training's time here.

The real base trainer runs in this process, with timers around a few of its methods. Two ways a checkpoint
can cost time are told apart: the training thread waits (for copies, or for the write before), or its steps
are slower while the writer uses the machine too.
Not covered: more than one rank, GPUs with a full queue (their work goes on while the thread waits).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEPTH, SEQ, BATCH, VOCAB = 4, 512, 4, 8192
SKIPPED = 10  # first steps: kernels are compiled, caches are cold


@dataclass
class Timer:
    """Wall and CPU seconds of every call of one method; `cpu` says of what."""

    cpu: Callable[[], float] = time.thread_time
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @contextmanager
    def on(self, owner: type, name: str) -> Iterator[None]:
        """Time `owner.name` while the context lasts."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), self.cpu()
            try:
                return method(*args, **kwargs)
            finally:
                self.wall_s.append(time.perf_counter() - wall)
                self.cpu_s.append(self.cpu() - cpu)

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, method)


@dataclass
class Figures:
    """What one training showed; shares are of the time from step SKIPPED on."""

    steps: int
    step_ms: float
    saves: int
    stall_ms: float
    """One checkpoint's, on the training thread."""
    stall_share: float
    slower_share: float
    """Steps that a write was under way in, beyond the median of the others."""
    write_s: float
    event_us: float
    event_share: float
    """CPU seconds of telling a step, of all CPU seconds of the process."""
    loader_us: float
    loader_share: float


def measure(home: Path, *, steps: int, save_every: int, total: int, data: str = "pydocs") -> Figures:
    """Train `steps` steps in `home` and time them. Makes corpus and tokenizer when there are none."""
    from nanochat.configurator import validate
    from nanochat.loader import Loader
    from nanochat.stages import STAGES
    from nanochat.train import base
    from nanochat.train import tokenizer as tokenizer_stage
    from nanochat.train.loop import Trainer
    from nanochat.train.saver import Saver

    os.environ |= {"NANOCHAT_BASE_DIR": str(home), "NANOCHAT_ATTEMPT_DIR": str(home / "attempt")}
    os.chdir(home)
    tokenizer = {"vocab_size": VOCAB, "data": data}
    tokenizer_stage.run(validate(STAGES["tokenizer"], tokenizer, 1))  # type: ignore[arg-type]
    update, save, tell, load, write = Timer(time.process_time), Timer(), Timer(), Timer(), Timer()
    writing: list[bool] = []
    make_step = Trainer.update

    def step(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        before = self._saver.writing
        result = make_step(self, *args, **kwargs)
        writing.append(before)
        return result

    config = {
        "depth": DEPTH, "max_seq_len": SEQ, "device_batch_size": BATCH, "total_batch_size": total,
        "num_iterations": steps, "save_every": save_every, "eval_every": 0, "sample_every": 0,
        "core_metric_every": 0, "model_tag": "overheads", "data": data,
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(_replaced(Trainer, "update", step))
        for timer, owner, name in (
            (update, Trainer, "update"), (save, Trainer, "save"), (tell, Trainer, "_tell"),
            (load, Loader, "next"), (write, Saver, "_run"),
        ):  # fmt: skip
            stack.enter_context(timer.on(owner, name))
        base.run(validate(STAGES["base"], config, 1))  # type: ignore[arg-type]
    times = update.wall_s[SKIPPED:]
    undisturbed = [t for t, busy in zip(times, writing[SKIPPED:], strict=True) if not busy]
    if not undisturbed:
        raise ValueError(
            f"a checkpoint was being written during all steps after the first {SKIPPED}: save less often"
        )
    quiet = statistics.median(undisturbed)
    slower = sum(t - quiet for t, busy in zip(times, writing[SKIPPED:], strict=True) if busy)
    wall_s = sum(times) + sum(save.wall_s)
    micro = len(load.wall_s) // len(update.wall_s)
    return Figures(
        steps=len(times),
        step_ms=1000 * quiet,
        saves=len(save.wall_s),
        stall_ms=1000 * statistics.median(save.wall_s),
        stall_share=sum(save.wall_s) / wall_s,
        slower_share=slower / wall_s,
        write_s=statistics.median(write.wall_s),
        event_us=1e6 * statistics.median(tell.cpu_s[SKIPPED:]),
        event_share=sum(tell.cpu_s[SKIPPED:]) / sum(update.cpu_s[SKIPPED:]),
        loader_us=1e6 * statistics.median(load.wall_s[SKIPPED * micro :]) * micro,
        loader_share=sum(load.wall_s[SKIPPED * micro :]) / sum(times),
    )


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def table(one: Figures) -> str:
    """The figures as lines of Markdown, each with the share it must not exceed."""
    rows = (
        ("training waits for checkpoints", f"{one.stall_ms:.1f} ms a checkpoint", one.stall_share, "≤ 2 %"),
        ("steps slower while one is written", f"{one.write_s:.1f} s a write", one.slower_share, ""),
        (
            "telling a step (CPU of the process's CPU)",
            f"{one.event_us:.0f} µs a step",
            one.event_share,
            "≤ 1 %",
        ),
        ("reading a step's batches", f"{one.loader_us:.0f} µs a step", one.loader_share, "≤ 1 %"),
    )
    lines = [f"{one.steps} steps of {one.step_ms:.0f} ms, {one.saves} checkpoints", ""]
    lines += ["| what | each | share | must |", "|---|---|---|---|"]
    lines += [f"| {what} | {each} | {share:.3%} | {must} |" for what, each, share, must in rows]
    return "\n".join(lines)


def main() -> int:
    flags = argparse.ArgumentParser(description="What saving, telling and reading cost of a training's time.")
    flags.add_argument("--steps", type=int, default=210)
    flags.add_argument("--save_every", type=int, default=50)
    flags.add_argument("--total", type=int, default=BATCH * SEQ, help="tokens a step")
    given = flags.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = measure(Path(home), steps=given.steps, save_every=given.save_every, total=given.total)
        print(table(figures))
    return 0 if figures.stall_share <= 0.02 and max(figures.event_share, figures.loader_share) <= 0.01 else 1


if __name__ == "__main__":
    raise SystemExit(main())
