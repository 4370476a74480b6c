"""Kills trainings at random moments; a resumed one must repeat an uninterrupted one bit for bit.

    python -m tests.nanochat.train.kills --kills 20 --ranks 1 2 --seed 1

One training runs whole. Another is started again and again with `resume_from=auto`, and each time SIGKILL
hits a rank or the launcher: while it starts, between steps, while a checkpoint is being written, while it
evaluates. What survives is ended then, as the service's worker would. Not covered: power cuts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from nanochat.checkpoint import MODEL, find_checkpoints
from tests.nanochat.trainers import DEADLINE_S, Attempt, Home

MOMENTS = ("starting", "stepping", "writing", "evaluating")
SAVE_EVERY, EVAL_EVERY, STEPS_PER_KILL = 5, 10, 12
START_S, STEP_S, WRITE_S, EVALUATION_S = 3.0, 0.03, 0.01, 0.05  # how long a moment lasts at most
POLL_S = 0.002
TAIL_BYTES = 8192
CONFIG = {
    "depth": 2,
    "max_seq_len": 64,
    "total_batch_size": 512,
    "save_every": SAVE_EVERY,
    "eval_every": EVAL_EVERY,
    "eval_tokens": 8192,
    "resume_from": "auto",
    "compile": "off",
}


@dataclass
class Outcome:
    """What became of one killed training, next to the whole one."""

    ranks: int
    steps: int
    moments: Counter[str] = field(default_factory=Counter)  # as found after the kill
    victims: Counter[str] = field(default_factory=Counter)
    made: int = 0  # steps of all attempts together
    first_differing_step: int | None = None
    same_weights: bool = False

    @property
    def kills(self) -> int:
        return sum(self.victims.values())

    @property
    def repeated(self) -> int:
        return self.made - self.steps


def campaign(home: Home, *, ranks: int, kills: int, seed: int) -> Outcome:
    """Train once in peace and once under fire. The second ends when it is done, after about `kills` kills."""
    rng = random.Random(seed)
    steps = kills * STEPS_PER_KILL
    config = home.base_config(**CONFIG, num_iterations=steps, processes=ranks)
    whole = home.start("scripts.base_train", config, run=f"whole{ranks}", ranks=ranks)
    assert whole.wait() == 0, whole.log
    expected = whole.losses()
    assert sorted(expected) == list(range(1, steps + 1))

    outcome = Outcome(ranks, steps)
    run, number, code = f"killed{ranks}", 0, -1
    while code != 0:
        number += 1
        left = max(1, kills - outcome.kills)
        start = last_saved(home, run)
        attempt = home.start("scripts.base_train", config, run=run, attempt=number, ranks=ranks)
        if outcome.kills < kills:
            target = start + rng.randint(0, max(1, 2 * (steps - start) // (left + 1)))
            code = kill(attempt, home.base / "base_checkpoints" / run, target, rng, outcome)
        else:
            code = attempt.wait()
            assert code == 0, attempt.log
        for step, loss in attempt.losses().items():
            outcome.made += 1
            if loss != expected[step]:
                outcome.first_differing_step = min(step, outcome.first_differing_step or step)
    outcome.same_weights = final_weights(home, run) == final_weights(home, f"whole{ranks}")
    return outcome


def kill(attempt: Attempt, place: Path, target: int, rng: random.Random, outcome: Outcome) -> int:
    """SIGKILL to somebody once step `target` is made and the moment has come. 0: it was done before."""
    moment = rng.choice(MOMENTS)
    launcher = psutil.Process(attempt.process.pid)
    started, delay_s = time.monotonic(), rng.random()
    if moment == "starting":
        delay_s *= START_S
        wait(attempt, lambda: time.monotonic() - started >= delay_s)
    else:
        latest = min(target + EVAL_EVERY, outcome.steps - SAVE_EVERY)  # a moment that does not come is let go
        wait(
            attempt,
            lambda: (
                (step := last_step(attempt)) >= target and (step >= latest or comes(moment, attempt, place))
            ),
        )
        until_s = {"stepping": STEP_S, "writing": WRITE_S, "evaluating": EVALUATION_S}[moment]
        hit_s = time.monotonic() + delay_s * until_s
        wait(attempt, lambda: time.monotonic() >= hit_s)
    ranks: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        ranks = [child for child in launcher.children(recursive=True) if is_rank(child)]
    name, victim = rng.choice(
        [("launcher", launcher), *((f"rank {n}", rank) for n, rank in enumerate(ranks))]
    )
    if attempt.process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            os.kill(victim.pid, signal.SIGKILL)
            outcome.victims["the process" if outcome.ranks == 1 else name] += 1
    code = attempt.process.wait(DEADLINE_S)
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):
            rank.kill()
    psutil.wait_procs(ranks, DEADLINE_S)
    if code:
        outcome.moments[what_was(attempt, place)] += 1
    return code


def wait(attempt: Attempt, condition: Callable[[], bool]) -> None:
    """Until `condition` holds or the training has ended."""
    end = time.monotonic() + DEADLINE_S
    while attempt.process.poll() is None and not condition():
        assert time.monotonic() < end, f"waited in vain:\n{attempt.log}"
        time.sleep(POLL_S)


def comes(moment: str, attempt: Attempt, place: Path) -> bool:
    """Whether that is what the training is doing right now."""
    if moment == "writing":
        return any(place.glob("step_*.tmp"))
    if moment == "evaluating":  # the checkpoint of a step that was made is told, its val/bpb is not yet
        told = [event for event in last_events(attempt) if not event.get("removed")]
        metric = next((event for event in reversed(told) if event["kind"] == "metric"), None)
        return (
            metric is not None
            and metric["step"] % EVAL_EVERY == 0
            and "train/loss" in metric["values"]
            and (told[-1]["kind"], told[-1]["step"]) == ("checkpoint", metric["step"])
        )
    return True


def what_was(attempt: Attempt, place: Path) -> str:
    """What the training was doing when it was killed, by what it left."""
    if any(place.glob("step_*.tmp")):
        return "writing"
    if last_step(attempt) == 0:
        return "starting"
    return "evaluating" if comes("evaluating", attempt, place) else "stepping"


def last_step(attempt: Attempt) -> int:
    """The last step this attempt has told of; 0 before the first."""
    return next((e["step"] for e in reversed(last_events(attempt)) if e["kind"] == "metric"), 0)


def last_events(attempt: Attempt) -> list[dict[str, Any]]:
    """What the end of the events says: reading all of them all the time would slow the training."""
    file = attempt.directory / "events.jsonl"
    if not file.exists():
        return []
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
        cut = stream.tell() > 0
        lines = stream.read().decode(errors="replace").split("\n")[:-1]  # the last may be half written yet
    return [json.loads(line) for line in lines[cut:]]


def is_rank(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "RANK" in process.environ()
    return False


def last_saved(home: Home, run: str) -> int:
    places = find_checkpoints(home.base / "base_checkpoints", run)
    return int(places[-1].name[5:]) if places else 0


def final_weights(home: Home, run: str) -> bytes:
    return (find_checkpoints(home.base / "base_checkpoints", run)[-1] / MODEL).read_bytes()


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as lines of Markdown."""
    lines = ["| ranks | steps | kills | while | victims | steps repeated | first differing step | weights |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for one in outcomes:
        moments = ", ".join(f"{name} {one.moments[name]}" for name in MOMENTS)
        victims = ", ".join(f"{name} {count}" for name, count in sorted(one.victims.items()))
        differing = "none" if one.first_differing_step is None else one.first_differing_step
        weights = "identical" if one.same_weights else "DIFFERENT"
        cells = (one.ranks, one.steps, one.kills, moments, victims, one.repeated, differing, weights)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> int:
    flags = argparse.ArgumentParser(description="Kill trainings at random moments and compare their losses.")
    flags.add_argument("--kills", type=int, default=20, help="per number of ranks")
    flags.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    flags.add_argument("--seed", type=int, default=1)
    given = flags.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as place:
        home = Home(Path(place))
        assert home.train_tokenizer().code == 0
        for ranks in given.ranks:
            started = time.monotonic()
            outcomes.append(campaign(home, ranks=ranks, kills=given.kills, seed=given.seed))
            print(f"{ranks} rank(s): {time.monotonic() - started:.0f} s", flush=True)
    print(table(outcomes))
    return 0 if all(one.first_differing_step is None and one.same_weights for one in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
