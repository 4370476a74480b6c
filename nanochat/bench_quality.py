"""`python -m nanochat.bench_quality`: does each stage teach what it is for?

Every step is the real script: a tokenizer, a short and a long base model, then mid, sft and rl, each measured
on problems that no training holds. Steps that were done with the same flags are read again from `--home`.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nanochat.common import cores
from nanochat.evals.intervals import wilson
from nanochat.once import DONE, Event, run_once, values_of
from nanochat.paths import STAGE_DIRS

Flags = Mapping[str, Any]
Scores = dict[str, tuple[float, int]]
"""(accuracy, problems) by task."""

TOKENIZER: Flags = {"vocab_size": 512}
BASE: Flags = {
    "device": "cpu", "depth": 4, "max_seq_len": 256, "device_batch_size": 8, "total_batch_size": 4096,
    "warmdown_ratio": 0.4, "eval_every": 200, "eval_tokens": 131_072, "sample_every": 0,
    "core_metric_every": 0,
}  # fmt: skip
SHORT, LONG = 350, 1400
#: small talk and spelling beside as much text; who it is and sums come with sft
MID: Flags = {
    "device": "cpu", "tasks": "smalltalk,spelling", "task_examples": 24_000, "replay": 1.5,
    "device_batch_size": 8, "target_examples_per_step": 16, "init_lr_frac": 0.35,
}  # fmt: skip
#: only some sums, so that there is something left to learn for rl
SFT: Flags = {
    "device": "cpu", "tasks": "identity*2,smalltalk,spelling,sums[:1600]", "task_examples": 6000,
    "device_batch_size": 16, "target_examples_per_step": 32, "init_lr_frac": 0.08,
}  # fmt: skip
RL: Flags = {
    "device": "cpu", "tasks": "sums", "num_iterations": 120, "examples_per_step": 16, "num_samples": 16,
    "max_new_tokens": 48, "init_lr_frac": 0.03, "eval_every": 60, "eval_examples": 400,
}  # fmt: skip
ASKED: Flags = {
    "device": "cpu", "task_name": "identity,smalltalk,spelling,sums", "max_problems": 400,
    "max_new_tokens": 64, "batch_size": 64,
}  # fmt: skip
TEXT: Flags = {"device": "cpu", "max_new_tokens": 0, "split_tokens": 262_144, "device_batch_size": 16}
STAGES = ("base", "mid", "sft", "rl")


@dataclass(frozen=True)
class Bench:
    """Runs the steps below `home`."""

    home: Path
    ranks: int

    def run(self, name: str, script: str, flags: Flags, parent: str = "") -> list[Event]:
        """Events of one step; it is done again when `parent` was."""
        print(f"  {name}", flush=True)
        place = self.home / "quality"
        after = {"after": (place / parent / DONE).read_text()} if parent else {}
        return run_once(self.home, place / name, f"scripts.{script}", flags, ranks=self.ranks, note=after)

    def train(self, name: str, script: str, flags: Flags, parent: str = "") -> list[Event]:
        return self.run(name, script, {**flags, "model_tag": name}, parent)

    def scores(self, stage: str) -> Scores:
        """Of the stage's model, on held-out problems."""
        flags = {**ASKED, "checkpoint": model_of(stage)}
        found = self.run(f"chat_eval-{stage}", "chat_eval", flags, stage)
        event = next(event for event in found if event["kind"] == "eval")
        return {task: (share, event["counts"][task]) for task, share in event["values"].items()}

    def bpb(self, stage: str) -> float:
        """Of the stage's model, on validation text."""
        flags = {**TEXT, "checkpoint": model_of(stage)}
        return values_of(self.run(f"base_loss-{stage}", "base_loss", flags, stage), "base_loss/val_bpb")[-1]


def model_of(stage: str) -> str:
    return f"{STAGE_DIRS[stage]}/{stage}"


@dataclass(frozen=True)
class Row:
    """A line of the result: what was to hold, what was measured."""

    what: str
    asked: str
    measured: str
    held: bool


def measure(bench: Bench) -> list[Row]:
    """All steps in order, and what they show."""
    bench.run("tokenizer", "tok_train", TOKENIZER)
    short, long = (
        values_of(bench.train(name, "base_train", {**BASE, "num_iterations": steps}), "val/bpb")[-1]
        for name, steps in (("short", SHORT), ("base", LONG))
    )
    bench.train("mid", "mid_train", {**MID, "base_checkpoint": model_of("base")}, "base")
    bench.train("sft", "chat_sft", {**SFT, "mid_checkpoint": model_of("mid")}, "mid")
    rl = bench.train("rl", "chat_rl", {**RL, "sft_checkpoint": model_of("sft")}, "sft")
    scores = {stage: bench.scores(stage) for stage in STAGES}
    text = {stage: bench.bpb(stage) for stage in STAGES}
    print(table(scores, text))
    longer = Row(
        f"bits per byte after {SHORT} and {LONG} steps", "lower", f"{short:.4f}, {long:.4f}", long < short
    )
    return [longer, *chat_rows(scores, text), *rl_rows(rl)]


def chat_rows(scores: Mapping[str, Scores], text: Mapping[str, float]) -> list[Row]:
    """What sft teaches, and what it costs."""
    before, after = max(scores[stage]["identity"][0] for stage in ("base", "mid")), scores["sft"]
    worse = text["sft"] / text["base"] - 1
    return [
        Row("identity before sft", "< 95 %", f"{before:.1%}", before < 0.95),
        Row("identity after sft", "≥ 95 %", share(*after["identity"]), after["identity"][0] >= 0.95),
        Row("spelling after sft", "≥ 60 %", share(*after["spelling"]), after["spelling"][0] >= 0.6),
        Row("bits per byte of sft against base", "< +10 %", f"{worse:+.1%}", worse < 0.1),
    ]


def rl_rows(events: list[Event]) -> list[Row]:
    """What rl gains at its own measure: pass@1 over 8 answers to each held-out problem, and the rewards."""
    measured = values_of(events, "val/pass@1")
    first, last = measured[0], measured[-1]
    gain, p = last - first, p_value(first, last, RL["eval_examples"])
    rewards = values_of(events, "reward/mean")
    fifth = len(rewards) // 5
    curve = [statistics.mean(rewards[part * fifth : (part + 1) * fifth]) for part in range(5)]
    rises = all(later > earlier for earlier, later in pairwise(curve))
    return [
        Row("pass@1 before rl", "20 … 60 %", f"{first:.1%}", 0.2 <= first <= 0.6),
        Row(
            "pass@1 after rl", "+15 points, p < 0.01",
            f"{last:.1%} ({100 * gain:+.1f} points, p = {p:.1g})", gain >= 0.15 and p < 0.01,
        ),
        Row("mean reward by fifths of rl", "rises", " ".join(f"{value:.2f}" for value in curve), rises),
    ]  # fmt: skip


def p_value(before: float, after: float, problems: int) -> float:
    """Two-sided, of two shares of as many independent problems each (pooled z-test).

    Each problem counts once, though pass@1 averages several answers to it: the true p is lower.
    """
    pooled = (before + after) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / problems)
    return math.erfc(abs(after - before) / error / math.sqrt(2)) if error else 1.0


def table(scores: Mapping[str, Scores], text: Mapping[str, float]) -> str:
    """Accuracy by task, and bits per byte, of every stage."""
    lines = [f"{'':16}" + "".join(f"{stage.upper():>22}" for stage in scores)]
    for task in next(iter(scores.values())):
        lines.append(f"{task:16}" + "".join(f"{share(*found[task]):>22}" for found in scores.values()))
    return "\n".join([*lines, f"{'bits per byte':16}" + "".join(f"{bpb:>22.4f}" for bpb in text.values())])


def share(accuracy: float, total: int) -> str:
    """An accuracy with its 95 % interval."""
    low, high = wilson(round(accuracy * total), total)
    return f"{100 * accuracy:.1f} % ({100 * low:.0f} … {100 * high:.0f})"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_quality", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--home", required=True, help="directory for corpus, models and results; kept")
    parser.add_argument("--ranks", type=int, default=min(2, cores()))
    given = parser.parse_args(argv)
    home = Path(given.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    rows = measure(Bench(home, given.ranks))
    print(f"\n{'what':40}{'asked':>22}  measured")
    for row in rows:
        print(f"{row.what:40}{row.asked:>22}  {row.measured}{'' if row.held else '   NOT HELD'}")
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
