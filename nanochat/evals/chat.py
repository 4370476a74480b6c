"""Stage `chat_eval`: how many held-out problems of each chat task a checkpoint solves, and ChatCORE.

ChatCORE is the mean of the centred accuracies, (accuracy − chance) / (1 − chance), of its six tasks; fewer
of them give `chat_core/partial` and how many they were. With `num_samples` a problem is solved when one of
its answers is right, as in karpathy/nanochat.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nanochat.artefacts import checkpoint_path, relative
from nanochat.checkpoint import load_model, read_meta
from nanochat.common import World, setup_training
from nanochat.configurator import ConfigError
from nanochat.engine.make import Options, make_runner
from nanochat.errors import DataError
from nanochat.evals.answers import Answerer, final_text
from nanochat.evals.core import EvaluationFailed, Interrupted
from nanochat.evals.intervals import wilson
from nanochat.paths import find_artefact
from nanochat.stages.chat_eval import ChatEvalConfig
from nanochat.tasks import Task
from nanochat.tasks.registry import kinds, open_task
from nanochat.tasks.task import wrong_option

CHAT_CORE = ("arc-easy", "arc-challenge", "mmlu", "gsm8k", "humaneval", "spellingbee")
ALSO = ("hellaswag", "identity", "smalltalk", "spelling", "sums")  # what is scored too when no task is named
SHOWN_PER_TASK = 5
STAGES_WITH_CHAT = ("rl", "sft", "mid", "base")


@dataclass
class Score:
    """Right answers out of `total`, with a few examples."""

    right: int = 0
    total: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def run(cfg: ChatEvalConfig) -> None:
    """Score the checkpoint, and before it the one it was trained from when `compare_parent`.

    Asked to stop it leaves without results of what was not done.
    """
    with setup_training(cfg, name="chat_eval") as world:
        tasks = open_tasks(cfg, world)
        place = world.agree(checkpoint_path(cfg.checkpoint, world.base, STAGES_WITH_CHAT))
        meta = read_meta(place)
        step = int(meta.get("step", 0))
        world.phase("eval", steps=step)
        status = "succeeded"
        try:
            if cfg.compare_parent:
                if parent := _parent(meta, world):
                    evaluate(cfg, world, tasks, parent, "chat_eval/before", step)
                else:
                    world.warn(
                        f"{relative(place, world.base)} names no parent that is still there: no comparison"
                    )
            evaluate(cfg, world, tasks, place, "chat_eval", step)
        except Interrupted:
            status = "stopped"
        except EvaluationFailed as error:
            raise error.__cause__ or error from None  # the reason of a failure is the cause's
        peak = max(world.gather(world.peak_bytes()))
        world.events.emit("end", step=step, status=status, peak_bytes=peak)


def open_tasks(cfg: ChatEvalConfig, world: World) -> list[Task]:
    """The test splits of the tasks named, in their order; with no name, of all whose data is here.

    What is not here is said with the command that gets it. Raises ConfigError, DataError.
    """
    pointer = "/task_name"
    names = [name.strip() for name in cfg.task_name.split(",") if name.strip()]
    if not names:
        if cfg.task_name:
            raise wrong_option(f"no task is named; there are {', '.join(kinds())}", pointer=pointer)
        return _whatever_is_here(world)
    found = [open_task(name, "test", world.base, pointer) for name in names]
    if unjudged := [task.name for task in found if not task.judges]:
        raise wrong_option(f"{unjudged[0]} is only trained on: it has no right answers", pointer=pointer)
    return found


def _whatever_is_here(world: World) -> list[Task]:
    found = []
    for name in (*CHAT_CORE, *ALSO):
        try:
            found.append(open_task(name, "test", world.base))
        except (DataError, ConfigError) as error:  # no data, or no sandbox to judge in
            world.warn(f"{name} is left out: {error}")
    return found


def evaluate(
    cfg: ChatEvalConfig, world: World, tasks: Sequence[Task], place: Path, name: str, step: int
) -> dict[str, dict[str, Any]]:
    """A row of results by task, as events, as lines to read and as a file. Collective.

    Raises EvaluationFailed or Interrupted on every rank when one of them cannot go on; none waits for it.
    """

    def go_on() -> None:
        if world.stop:
            raise Interrupted

    model, tokenizer, meta = load_model(place, world.device, world.dtype)
    runner = make_runner(model.eval(), Options(cfg.batch_size, threads=torch.get_num_threads()))
    answerer = Answerer(runner, tokenizer, cfg.batch_size, cfg.seed, go_on)
    world.say(f"{name}: {relative(place, world.base)}")
    rows: dict[str, dict[str, Any]] = {}
    try:
        for task in tasks:
            mine, failure = Score(), None
            try:
                mine = solve(cfg, world, task, answerer)
            except Exception as error:  # said where all ranks meet, so that none waits for this one
                failure = error
            rows[task.name] = summary(task, _together(world, task, mine, failure))
            world.say(f"  {line(task.name, rows[task.name])}")
    finally:
        runner.close()
    report(world, rows, name, step, relative(place, world.base))
    if world.is_master:
        write_file(world.base, rows, meta, place)
    return rows


def solve(cfg: ChatEvalConfig, world: World, task: Task, answerer: Answerer) -> Score:
    """This rank's share of a task: every `world.size`-th problem."""
    limit = len(task) if cfg.max_problems < 0 else min(len(task), cfg.max_problems)
    numbers = range(world.rank, limit, world.size)
    if not limit:
        raise DataError(f"{task.name} holds no problem")
    problems = [task[number] for number in numbers]
    if task[0].letters:
        told = [[letter] for letter in answerer.letters(task, numbers)]
        judged = told
    else:
        ids = answerer.texts(
            task, numbers, max_new_tokens=cfg.max_new_tokens or task.max_new_tokens,
            temperature=cfg.temperature, top_k=cfg.top_k, samples=cfg.num_samples,
        )  # fmt: skip
        told = [[answerer.tokenizer.decode(one) for one in group] for group in ids]
        judged = [[final_text(answerer.tokenizer, one) for one in group] for group in ids]
    flat = [(problem, text) for problem, texts in zip(problems, judged, strict=True) for text in texts]
    verdicts = iter(task.evaluate_all([problem for problem, _ in flat], [text for _, text in flat]))
    score = Score()
    for problem, texts in zip(problems, told, strict=True):
        rights = [next(verdicts) for _ in texts]
        ok = any(rights)
        answer = texts[rights.index(True)] if ok else texts[0]
        score.right += ok
        score.total += 1
        score.examples.append(
            {"task": task.name, "prompt": problem.question[:2000], "answer": answer[:500],
             "expected": problem.expected[:500], "ok": ok}
        )  # fmt: skip
    return score


def _together(world: World, task: Task, mine: Score, failure: Exception | None) -> Score:
    """All ranks' scores; wrong answers are shown first, because one learns from them.

    Raises Interrupted, EvaluationFailed.
    """
    said = f"{type(failure).__name__}: {failure}" if failure else ""
    told = world.gather((mine, said, isinstance(failure, Interrupted)))
    if any(stopped for *_, stopped in told):
        raise Interrupted
    for rank, (_, problem, _) in enumerate(told):
        if problem:
            where = f" on rank {rank}" if world.size > 1 else ""
            raise EvaluationFailed(f"{task.name}{where}: {problem}") from failure
    scores: list[Score] = [score for score, *_ in told]
    examples = [example for score in scores for example in score.examples]
    wrong, right = [e for e in examples if not e["ok"]], [e for e in examples if e["ok"]]
    few = SHOWN_PER_TASK - 2
    shown = [*wrong[:few], *right, *wrong[few:]][:SHOWN_PER_TASK]
    return Score(sum(score.right for score in scores), sum(score.total for score in scores), shown)


def summary(task: Task, score: Score) -> dict[str, Any]:
    """A task's row of the results."""
    accuracy = score.right / score.total
    return {
        "accuracy": accuracy,
        "centered": (accuracy - task.chance) / (1 - task.chance),
        "interval": tuple(round(bound, 4) for bound in wilson(score.right, score.total)),
        "right": score.right,
        "total": score.total,
        "chance": task.chance,
        "examples": score.examples,
    }


def line(name: str, row: dict[str, Any]) -> str:
    """The row as people read it."""
    low, high = (100 * bound for bound in row["interval"])
    chance = f", chance {100 * row['chance']:.0f} %" if row["chance"] else ""
    return (
        f"{name:13} {100 * row['accuracy']:5.1f} %  ({row['right']} of {row['total']}, "
        f"95 % interval {low:.0f} … {high:.0f} %{chance})"
    )


def chat_core(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """{"chat_core/metric"} when all six tasks are there, else {"chat_core/partial", "chat_core/tasks"} of
    those that are; nothing when none is."""
    centered = [rows[name]["centered"] for name in CHAT_CORE if name in rows]
    if not centered:
        return {}
    mean = sum(centered) / len(centered)
    if len(centered) == len(CHAT_CORE):
        return {"chat_core/metric": mean}
    return {"chat_core/partial": mean, "chat_core/tasks": float(len(centered))}


def report(world: World, rows: dict[str, dict[str, Any]], name: str, step: int, checkpoint: str) -> None:
    """Events for the service."""
    values = {task: row["accuracy"] for task, row in rows.items()}
    found = chat_core(rows)
    if "chat_core/metric" in found:
        values["ChatCORE"] = found["chat_core/metric"]
        world.say(f"ChatCORE {values['ChatCORE']:.4f}")
    elif found:
        missing = ", ".join(task for task in CHAT_CORE if task not in rows)
        world.say(f"mean of {found['chat_core/tasks']:.0f} of ChatCORE's {len(CHAT_CORE)} tasks "
                  f"{found['chat_core/partial']:.4f} (not scored: {missing})")  # fmt: skip
    details = {
        "intervals": {task: row["interval"] for task, row in rows.items()},
        "centered": {task: row["centered"] for task, row in rows.items()},
        "examples": [example for row in rows.values() for example in row["examples"]],
        "checkpoint": checkpoint,
        "chat_core": found,
    }
    counts = {task: row["total"] for task, row in rows.items()}
    world.events.emit("eval", step=step, name=name, values=values, counts=counts, details=details)
    if name == "chat_eval":
        metrics = {f"chat_eval/{task}": row["accuracy"] for task, row in rows.items()} | found
        world.events.emit("metric", step=step, values=metrics)


def write_file(base: Path, rows: dict[str, dict[str, Any]], meta: dict[str, Any], place: Path) -> None:
    """`chat_eval/<stage>_<tag>_<step>.json` with everything; written again, the later one stays."""
    step = int(meta.get("step", 0))
    file = base / "chat_eval" / f"{meta.get('stage', 'base')}_{place.parent.name}_{step:06d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = {"checkpoint": relative(place, base), "step": step, "chat_core": chat_core(rows), "tasks": rows}
    file.write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")


def _parent(meta: dict[str, Any], world: World) -> Path | None:
    parent = meta.get("parent")
    if not parent:
        return None
    try:
        return find_artefact(parent["path"], world.base)
    except FileNotFoundError:
        return None
