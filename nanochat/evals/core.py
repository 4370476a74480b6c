"""Stage `base_eval`: CORE, the mean of centred accuracies of in-context tasks (DCLM).

Examples are strided over the ranks and scored in batches. Equally likely choices are decided by a draw
that depends on the example's number only, so an untrained model scores chance. CORE is what all 22 tasks
give; fewer of them, or others, give `core/partial` and how many they were.

CORE takes the choice with the lowest mean loss per token. `acc_sum` beside it takes the one with the
highest summed log-likelihood, as other harnesses do (`acc` of lm-evaluation-harness).
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanochat.artefacts import checkpoint_path, relative
from nanochat.checkpoint import load_model
from nanochat.common import World, setup_training
from nanochat.configurator import ConfigError, nearest_name
from nanochat.engine.make import Options, make_runner
from nanochat.engine.runner import Runner
from nanochat.errors import DataError
from nanochat.evals.bundle import CORE_TASKS, CoreTask, Example, read_bundle
from nanochat.evals.core_data import build, package
from nanochat.evals.intervals import wilson
from nanochat.evals.scoring import Continuation, Scorer, common_start, cut
from nanochat.gpt import GPT
from nanochat.paths import find_artefact
from nanochat.stages import Problem
from nanochat.stages.base_eval import BaseEvalConfig
from nanochat.tokenizer import Tokenizer

SHOT_SEED = 1234
TIE_NATS = 1e-6
EXAMPLES_AT_ONCE = 64
Group = list[tuple[Sequence[int], int]]


class EvaluationFailed(Exception):
    """Some rank could not go on with an evaluation; raised on all of them, from what happened on this one."""


class Interrupted(Exception):
    """Some rank was asked to stop before an evaluation was done; raised on all of them."""


def run(cfg: BaseEvalConfig) -> None:
    """Score one checkpoint: an `eval` event, metrics, and `base_eval/base_model_<step>.csv` and `.json`.

    Asked to stop it leaves without results.
    """
    with setup_training(cfg, name="base_eval") as world:
        tasks = chosen(open_bundle(cfg.bundle, world), cfg.tasks)
        place = world.agree(checkpoint_path(cfg.checkpoint, world.base, ("base", "mid", "sft", "rl")))
        model, tokenizer, meta = load_model(place, world.device, world.dtype)
        step = int(meta.get("step", 0))
        world.phase("eval", steps=step)
        world.say(f"base_eval: {relative(place, world.base)}")
        status = "succeeded"
        try:
            rows = evaluate(world, model, tokenizer, tasks, cfg.max_per_task, cfg.batch_size)
            report(world, rows, step, relative(place, world.base))
        except Interrupted:
            status = "stopped"
        except EvaluationFailed as error:
            raise error.__cause__ or error from None  # the reason of a failure is the cause's
        peak = max(world.gather(world.peak_bytes()))
        world.events.emit("end", step=step, status=status, peak_bytes=peak)


def open_bundle(name: str, world: World) -> list[CoreTask]:
    """The tasks of the bundle `name`, written from the installed package when it is not there. Collective.

    Raises DataError that says how to get what is missing, on every rank.
    """
    try:
        place = find_artefact(name, world.base)
    except FileNotFoundError:
        place = world.base / name  # read_bundle says what is missing and how to get it
    problem = ""
    if world.is_master and not place.exists() and package():
        try:
            have, missing = build(place)
            world.say(f"wrote {len(have)} of CORE's 22 tasks to {place}; no package has {', '.join(missing)}")
        except (DataError, OSError) as error:
            problem = str(error)
    if problem := world.agree(problem):
        raise DataError(problem)
    return read_bundle(place)


def chosen(tasks: list[CoreTask], names: str) -> list[CoreTask]:
    """The tasks named in a comma-separated list, all when it is empty. Raises ConfigError."""
    labels = {task.label: task for task in tasks}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in labels:
            nearest = nearest_name(name, labels)
            hint = f"the nearest is {nearest!r}" if nearest else f"there are {', '.join(labels)}"
            raise ConfigError([Problem("/tasks", f"the bundle has no task {name!r}; {hint}", nearest)])
    return [task for task in tasks if task.label in wanted] if wanted else tasks


def evaluate(
    world: World, model: GPT, tokenizer: Tokenizer, tasks: Sequence[CoreTask], limit: int, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Accuracy, interval, centred accuracy and count by task. Collective; keeps the model's mode.

    Raises EvaluationFailed or Interrupted on every rank when one of them cannot go on; none waits for it.
    """
    training = model.training
    runner: Runner | None = None
    rows: dict[str, dict[str, Any]] = {}

    def go_on() -> None:
        if world.stop:
            raise Interrupted

    try:
        for task in tasks:
            answered: dict[int, Answer] = {}
            failure: Exception | None = None
            try:
                runner = runner or make_runner(
                    model.eval(), Options(batch_size, threads=torch.get_num_threads())
                )
                examples = task.examples(limit)
                if not examples:
                    raise DataError(f"{task.file} holds no example")
                mine = range(world.rank, len(examples), world.size)
                answered = answers(Scorer(runner, go_on), tokenizer, task, examples, mine)
            except Exception as error:  # said where all ranks meet, so that none waits for this one
                failure = error
            rows[task.label] = row = _together(world, task, list(answered.values()), failure)
            low, high = row["interval"]
            world.say(
                f"  {task.label:32} {100 * row['accuracy']:5.1f} %  ({row['right']} of {row['total']}, 95 % "
                f"interval {100 * low:.0f} … {100 * high:.0f} %), centred {row['centered']:.4f}"
            )
    finally:
        if runner is not None:
            runner.close()
        model.train(training)
    return rows


def _together(
    world: World, task: CoreTask, answered: list[Answer], failure: Exception | None
) -> dict[str, Any]:
    """The row of all ranks' answers. Raises Interrupted, EvaluationFailed."""
    said = f"{type(failure).__name__}: {failure}" if failure else ""
    ours = (sum(a.right for a in answered), sum(a.right_by_sum for a in answered), len(answered))
    told = world.gather((*ours, said, isinstance(failure, Interrupted)))
    if any(rank[-1] for rank in told):
        raise Interrupted
    for rank, (*_, problem, _) in enumerate(told):
        if problem:
            where = f" on rank {rank}" if world.size > 1 else ""
            raise EvaluationFailed(f"{task.label}{where}: {problem}") from failure
    right, by_sum, total = (sum(rank[i] for rank in told) for i in range(3))
    return summary(task, right, total, None if task.kind == "language_modeling" else by_sum)


def summary(task: CoreTask, right: int, total: int, by_sum: int | None = None) -> dict[str, Any]:
    """One row of the results; `acc_sum` is None where there are no choices to compare."""
    accuracy = right / total
    low, high = wilson(right, total)
    return {
        "accuracy": accuracy,
        "centered": (accuracy - task.chance) / (1 - task.chance),
        "interval": (round(low, 4), round(high, 4)),
        "right": right,
        "total": total,
        "acc_sum": None if by_sum is None else by_sum / total,
    }


@dataclass(frozen=True)
class Answer:
    """Whether an example is answered right by CORE's rule, and by summed log-likelihoods."""

    right: bool
    right_by_sum: bool


def answers(
    scorer: Scorer, tokenizer: Tokenizer, task: CoreTask, examples: list[Example], which: Sequence[int]
) -> dict[int, Answer]:
    """How each example of `which` is answered."""
    found: dict[int, Answer] = {}
    for start in range(0, len(which), EXAMPLES_AT_ONCE):
        part = which[start : start + EXAMPLES_AT_ONCE]
        groups = [sequences(tokenizer, task, examples, i, scorer.runner.context) for i in part]
        for i, group, scored in zip(part, groups, scorer.continuations(groups), strict=True):
            sums = [one.loss * (len(ids) - start) for one, (ids, start) in zip(scored, group, strict=True)]
            right = is_right(task, examples[i], i, scored)
            chooses = task.kind != "language_modeling"
            found[i] = Answer(right, pick(sums, i) == int(examples[i]["gold"]) if chooses else right)
    return found


def is_right(task: CoreTask, example: Example, number: int, scored: Sequence[Continuation]) -> bool:
    """The gold choice has the lowest mean loss; or every token of the continuation is the likeliest."""
    if task.kind == "language_modeling":
        return scored[0].greedy
    return pick([one.loss for one in scored], number) == int(example["gold"])


def pick(losses: Sequence[float], number: int) -> int:
    """The choice with the lowest loss; a draw by the example's number among equals."""
    best = min(losses)
    return random.Random(number).choice([i for i, loss in enumerate(losses) if loss <= best + TIE_NATS])


def sequences(
    tokenizer: Tokenizer, task: CoreTask, examples: list[Example], number: int, context: int
) -> Group:
    """(ids, where the scored part begins) of every choice, the task's shots before each."""
    texts = prompts(task, examples, number)
    ids = [[tokenizer.bos, *tokenizer.encode(text)] for text in texts]
    if task.kind == "multiple_choice":
        starts = [min(common_start(ids), min(map(len, ids)) - 1)] * len(ids)
    elif task.kind == "schema":
        suffix = common_start([one[::-1] for one in ids])
        starts = [max(1, len(one) - suffix) for one in ids]
    else:
        starts = [min(common_start(ids), len(ids[1]) - 1)]
        ids = ids[1:]
    return [cut(one, start, context) for one, start in zip(ids, starts, strict=True)]


def prompts(task: CoreTask, examples: list[Example], number: int) -> list[str]:
    """Whole texts by choice; for language modelling the text without the continuation and with it."""
    others = range(len(examples) - 1)  # numbers of all examples but this one: those behind it one lower
    drawn = random.Random(SHOT_SEED + number).sample(others, min(task.shots, len(others)))
    shots = "".join(_solved(task, examples[i + (i >= number)]) + "\n\n" for i in drawn)
    example, delimiter = examples[number], task.delimiter
    if task.kind == "multiple_choice":
        return [f"{shots}{example['query']}{delimiter}{choice}" for choice in example["choices"]]
    if task.kind == "schema":
        return [
            f"{shots}{option}{delimiter}{example['continuation']}" for option in example["context_options"]
        ]
    without = f"{shots}{example['context'].strip()}{delimiter}"
    return [without.strip(), without + example["continuation"]]


def _solved(task: CoreTask, example: Example) -> str:
    if task.kind == "multiple_choice":
        return f"{example['query']}{task.delimiter}{example['choices'][example['gold']]}"
    if task.kind == "schema":
        option = example["context_options"][example["gold"]]
        return f"{option}{task.delimiter}{example['continuation']}"
    return f"{example['context'].strip()}{task.delimiter}{example['continuation']}"


def core_of(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """`core/metric` when the rows are CORE's 22 tasks, else `core/partial` and `core/tasks`."""
    mean = sum(row["centered"] for row in rows.values()) / len(rows)
    if set(rows) == set(CORE_TASKS):
        return {"core/metric": mean}
    return {"core/partial": mean, "core/tasks": float(len(rows))}


def details_of(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What an `eval` event says beside the accuracies."""
    return {
        "intervals": {label: row["interval"] for label, row in rows.items()},
        "centered": {label: row["centered"] for label, row in rows.items()},
        "acc_sum": {label: row["acc_sum"] for label, row in rows.items() if row["acc_sum"] is not None},
    }


def report(world: World, rows: dict[str, dict[str, Any]], step: int, checkpoint: str) -> None:
    """Events for the service; CSV and JSON below the base directory."""
    values = {label: row["accuracy"] for label, row in rows.items()}
    metrics = {f"base_eval/{label}": value for label, value in values.items()}
    counts = {label: row["total"] for label, row in rows.items()}
    found = core_of(rows)
    metrics |= found
    if "core/metric" in found:
        values["CORE"] = found["core/metric"]
        world.say(f"CORE {values['CORE']:.4f}")
    else:
        mean = found["core/partial"]
        world.say(f"mean of {len(rows)} tasks {mean:.4f} (CORE itself is the mean of its {len(CORE_TASKS)})")
    details = {**details_of(rows), "checkpoint": checkpoint, "core": found}
    world.events.emit("eval", step=step, name="base_eval", values=values, counts=counts, details=details)
    world.events.emit("metric", step=step, values=metrics)
    if world.is_master:
        write_files(world.base / "base_eval" / f"base_model_{step:06d}", rows, found, checkpoint)


def write_files(
    stem: Path, rows: dict[str, dict[str, Any]], found: dict[str, float], checkpoint: str
) -> None:
    """`<stem>.csv` with the columns Task, Accuracy, Centered, and `<stem>.json` with everything."""
    core = found.get("core/metric")
    stem.parent.mkdir(parents=True, exist_ok=True)
    with stem.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["Task", "Accuracy", "Centered"])
        for label, row in rows.items():
            table.writerow([label, f"{row['accuracy']:.6f}", f"{row['centered']:.6f}"])
        if core is not None:
            table.writerow(["CORE", "", f"{core:.6f}"])
    whole = {"checkpoint": checkpoint, "core": core, "partial": found.get("core/partial"), "tasks": rows}
    stem.with_suffix(".json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
