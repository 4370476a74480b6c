"""Stage `chat_eval`: how many held-out problems of each chat task a checkpoint solves."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from nanochat.artefacts import checkpoint_path, relative
from nanochat.chat import render_prompt
from nanochat.checkpoint import load_model, read_meta
from nanochat.common import World, setup_training
from nanochat.engine import generate_batch
from nanochat.engine.make import Options, make_runner
from nanochat.evals.intervals import wilson
from nanochat.evals.scoring import Scorer
from nanochat.gpt import GPT
from nanochat.paths import find_artefact
from nanochat.stages.chat_eval import ChatEvalConfig
from nanochat.tasks import Example, Task
from nanochat.tasks.registry import kinds, open_task
from nanochat.tasks.task import wrong_option
from nanochat.tokenizer import Tokenizer

SHOWN_PER_TASK = 5
STAGES_WITH_CHAT = ("rl", "sft", "mid", "base")


@dataclass
class Score:
    """Right answers out of `total`, with a few examples."""

    right: int = 0
    total: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def run(cfg: ChatEvalConfig) -> None:
    """Score the checkpoint, and before it the one it was trained from when `compare_parent`."""
    with setup_training(cfg, name="chat_eval") as world:
        tasks = _tasks(cfg, world)
        place = world.agree(checkpoint_path(cfg.checkpoint, world.base, STAGES_WITH_CHAT))
        meta = read_meta(place)
        step = int(meta.get("step", 0))
        world.phase("eval", steps=step)
        if cfg.compare_parent:
            if parent := _parent(meta, world):
                evaluate(cfg, world, tasks, parent, "chat_eval/before", step)
            else:
                world.warn(
                    f"{relative(place, world.base)} names no parent that is still there: no comparison"
                )
        evaluate(cfg, world, tasks, place, "chat_eval", step)
        peak = max(world.gather(world.peak_bytes()))
        world.events.emit("end", step=step, status="succeeded", peak_bytes=peak)


def evaluate(
    cfg: ChatEvalConfig, world: World, tasks: list[Task], place: Path, name: str, step: int
) -> dict[str, float]:
    """Accuracy by task, as an `eval` event and as lines to read. Collective."""
    model, tokenizer, _ = load_model(place, world.device, world.dtype)
    model.eval()
    world.say(f"{name}: {relative(place, world.base)}")
    values: dict[str, float] = {}
    counts: dict[str, int] = {}
    intervals: dict[str, tuple[float, float]] = {}
    examples: list[dict[str, Any]] = []
    for task in tasks:
        mine = (
            choose(cfg, world, task, model, tokenizer)
            if task[0].letters
            else ask(cfg, world, task, model, tokenizer)
        )
        score = total_score(world, mine)
        low, high = wilson(score.right, score.total)
        values[task.name] = score.right / score.total
        counts[task.name] = score.total
        intervals[task.name] = (round(low, 4), round(high, 4))
        examples += score.examples
        percent = 100 * values[task.name]
        world.say(
            f"  {task.name:13} {percent:5.1f} %  ({score.right} of {score.total}, "
            f"95 % interval {100 * low:.0f} … {100 * high:.0f} %)"
        )
    details = {
        "intervals": intervals,
        "examples": examples[: SHOWN_PER_TASK * 4],
        "checkpoint": relative(place, world.base),
    }
    world.events.emit("eval", step=step, name=name, values=values, counts=counts, details=details)
    if name == "chat_eval":
        metrics = {f"chat_eval/{task}": value for task, value in values.items()}
        world.events.emit("metric", step=step, values=metrics)
    return values


def ask(cfg: ChatEvalConfig, world: World, task: Task, model: GPT, tokenizer: Tokenizer) -> Score:
    """This rank's share of the problems: every `world.size`-th one."""
    problems = list(islice(task, cfg.max_problems))[world.rank :: world.size]
    context = model.cfg.sequence_len
    longest = max(context // 2, context - cfg.max_new_tokens)  # a question that is longer loses its beginning
    prompts = [render_prompt(tokenizer, problem.prompt)[-longest:] for problem in problems]
    room = context - max((len(prompt) for prompt in prompts), default=0)
    answers = generate_batch(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max(1, min(cfg.max_new_tokens, room)),
        temperature=cfg.temperature,
        top_k=cfg.top_k,
        seed=cfg.seed,
        batch_size=cfg.batch_size,
    )
    score = Score()
    judged = task.evaluate_all(problems, [final_text(tokenizer, ids) for ids in answers])
    for problem, ids, right in zip(problems, answers, judged, strict=True):
        score.right += right
        score.total += 1
        score.examples.append(_example(task, problem, tokenizer.decode(ids), right))
    return score


def choose(cfg: ChatEvalConfig, world: World, task: Task, model: GPT, tokenizer: Tokenizer) -> Score:
    """This rank's share of a multiple-choice task: the likeliest of the letters is the answer."""
    numbers = list(range(min(len(task), cfg.max_problems)))[world.rank :: world.size]
    score = Score()
    for number, letter in zip(numbers, predict(cfg, task, numbers, model, tokenizer), strict=True):
        example = task[number]
        right = task.evaluate(example, letter)
        score.right += right
        score.total += 1
        score.examples.append(_example(task, example, letter, right))
    return score


def predict(
    cfg: ChatEvalConfig, task: Task, numbers: Sequence[int], model: GPT, tokenizer: Tokenizer
) -> list[str]:
    """The letter the model takes for each question; equally likely letters are decided by a seeded draw.

    Nothing here looks at the model answer. A question longer than the context loses its beginning.
    """
    examples = [task[number] for number in numbers]
    prompts = [render_prompt(tokenizer, example.prompt)[-model.cfg.sequence_len :] for example in examples]
    columns = [[tokenizer.encode(letter)[0] for letter in example.letters] for example in examples]
    runner = make_runner(model, Options(cfg.batch_size, threads=torch.get_num_threads()))
    scores = Scorer(runner).last(prompts, columns)
    runner.close()
    found = []
    for number, example, logits in zip(numbers, examples, scores, strict=True):
        best = [letter for letter, logit in enumerate(logits) if logit == max(logits)]
        found.append(example.letters[random.Random(f"{cfg.seed} {task.name} tie {number}").choice(best)])
    return found


def final_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """What the assistant says after its last tool output."""
    end = tokenizer.special("<|output_end|>")
    last = len(ids) - ids[::-1].index(end) if end in ids else 0
    return tokenizer.decode(ids[last:])


def total_score(world: World, mine: Score) -> Score:
    """The ranks' scores together; wrong answers are shown first, because one learns from them."""
    scores = world.gather(mine)
    examples = [example for score in scores for example in score.examples]
    wrong, right = [e for e in examples if not e["ok"]], [e for e in examples if e["ok"]]
    few = SHOWN_PER_TASK - 2
    shown = [*wrong[:few], *right, *wrong[few:]][:SHOWN_PER_TASK]
    return Score(sum(score.right for score in scores), sum(score.total for score in scores), shown)


def _example(task: Task, problem: Example, answer: str, right: bool) -> dict[str, Any]:
    return {
        "task": task.name,
        "prompt": problem.question,
        "answer": answer[:500],
        "expected": problem.expected,
        "ok": right,
    }


def _tasks(cfg: ChatEvalConfig, world: World) -> list[Task]:
    """The test splits of the tasks named, in their order. Raises ConfigError, DataError."""
    pointer = "/task_name"
    names = [name.strip() for name in cfg.task_name.split(",") if name.strip()]
    if not names:
        raise wrong_option(f"no task is named; there are {', '.join(kinds())}", pointer=pointer)
    found = [open_task(name, "test", world.base, pointer) for name in names]
    if unjudged := [task.name for task in found if not task.judges]:
        raise wrong_option(f"{unjudged[0]} is only trained on: it has no right answers", pointer=pointer)
    return found


def _parent(meta: dict[str, Any], world: World) -> Path | None:
    parent = meta.get("parent")
    if not parent:
        return None
    try:
        return find_artefact(parent["path"], world.base)
    except FileNotFoundError:
        return None
