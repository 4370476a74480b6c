"""Stage `rl`: the model answers, answers are rewarded, and those better than their group become likelier.

Per step: all prompts of a rank run as one continuous batch of the engine; the advantage of an answer is
its reward minus the mean of its group; every token that the model chose counts the same, those of prompts
and tools do not. One optimizer step is made per batch of answers, so the policy is the one that answered.
The engine is made for the weights of a step and given back before learning: on a CPU its packed weights
would be stale, on a GPU its cache would take the memory that learning needs.
Not covered: importance ratios, KL, rewards from a model. With top_k or another temperature than 1 the
gradient is that of the whole distribution at temperature 1, a little beside what was sampled from.

# Shapes: B answers, T tokens, N learned tokens.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.artefacts import checkpoint_path, reference
from nanochat.chat import render_prompt
from nanochat.checkpoint import load_model, read_meta
from nanochat.common import World, setup_training
from nanochat.configurator import ConfigError
from nanochat.engine.engine import Engine, Request
from nanochat.engine.make import Options, make_runner
from nanochat.engine.runner import BLOCK
from nanochat.engine.sampling import Sampling
from nanochat.errors import DataError
from nanochat.evals.answers import final_text
from nanochat.gpt import GPT
from nanochat.loss import head_loss
from nanochat.schedule import MOMENTUM
from nanochat.stages import Problem as ConfigProblem
from nanochat.stages.rl import RlConfig
from nanochat.tasks import Example, Task
from nanochat.tasks.mixture import parse
from nanochat.tasks.rewards import Answer, pass_at_k, score
from nanochat.tasks.rewards import parse as parse_rewards
from nanochat.tokenizer import Tokenizer
from nanochat.train.batches import Row, collate
from nanochat.train.first_batch import FirstBatch
from nanochat.train.first_batch import Row as ShownRow
from nanochat.train.loop import (
    Progress,
    Trainer,
    Update,
    checkpoint_to_resume,
    make_optimizer,
    out_of_memory,
)
from nanochat.train.sft import LEARNED_UNIT

Asked = tuple[Task, Example]
SHOWN = 2  # answers of a step that become events


@dataclass(frozen=True)
class Rollout:
    """One answer: prompt and answer as a row to learn from, what it is judged by, and its advantage."""

    row: Row
    answer: Answer
    values: dict[str, float]
    reward: float
    right: bool
    advantage: float = 0.0

    @property
    def learned(self) -> int:
        return sum(self.row[1])

    @property
    def shown(self) -> ShownRow:
        return ShownRow(*self.row, {"reward": self.reward, "advantage": self.advantage})


def run(cfg: RlConfig) -> None:
    """Learn for as many steps as there are, or save and leave when asked to stop."""
    with setup_training(cfg, name="rl") as world:
        world.phase("data")
        parse_rewards(cfg.rewards)  # a wrong name fails before anything is loaded
        tasks = [part.task for part in parse(cfg.tasks, world.base)]
        if not all(task.judges for task in tasks):
            raise ConfigError([ConfigProblem("/tasks", "rl needs tasks that judge answers, not files")])
        trainer, resumed = prepare(cfg, world)
        train(trainer, cfg, tasks, resumed)


def prepare(cfg: RlConfig, world: World) -> tuple[Trainer, Path | None]:
    """Model and optimizer from the parent checkpoint, or from one of this run."""
    parent = world.agree(checkpoint_path(cfg.sft_checkpoint, world.base, ("sft", "mid")))
    tag = cfg.model_tag or world.run_id or f"d{read_meta(parent)['model_config']['n_layer']}"
    resumed = world.agree(checkpoint_to_resume(cfg, world, "rl", tag))
    model, tokenizer, meta = load_model(resumed or parent, world.device, world.dtype)
    ours: dict[str, Any]
    progress = Progress()
    if resumed:
        progress = Progress(**meta["progress"])
        ours = {"parent": meta["parent"], "resumed_from": reference(resumed, world.base)}
    else:
        ours = {"parent": reference(parent, world.base)}
        world.say(f"starting from {parent}")
    steps = cfg.num_iterations if cfg.num_iterations > 0 else cfg.task_examples // cfg.examples_per_step
    optimizer = make_optimizer(model, cfg, resumed)
    return Trainer(world, cfg, "rl", tag, max(1, steps), model, tokenizer, optimizer, ours, progress), resumed


def train(trainer: Trainer, cfg: RlConfig, tasks: Sequence[Task], resumed: Path | None) -> None:
    """The loop. The learning rate falls linearly from `init_lr_frac` to 0."""
    world, progress = trainer.world, trainer.progress
    trainer.begin(resumed, 0)  # too many shapes to compile
    first = FirstBatch(trainer, resumed)
    if progress.step == 0 and cfg.eval_every > 0:
        validate(trainer, cfg, tasks)  # what there is to improve on
    while trainer.running():
        step = progress.step
        asked = problems_of(cfg, tasks, step)[world.rank :: world.size]
        started = time.monotonic()
        groups, cfg = answer_within_memory(trainer, cfg, asked, cfg.num_samples, _seed(cfg.seed, step))
        mine = [one for group in groups for one in with_advantages(group)]
        seconds = time.monotonic() - started
        progress.seconds += seconds  # the update adds its own; both count for the time that is left
        (chosen,) = world.sum(sum(one.learned for one in mine))
        # gradients are averaged over ranks: × size makes the average a sum
        share = world.size / max(1.0, chosen)
        while True:
            batches = micro_batches(mine, cfg.device_batch_size >> progress.halvings)
            first.tell((one.shown for one in batches[0]), len(batches[0]))
            result = trainer.update(
                [partial(micro_loss, trainer, batch, share) for batch in batches],
                tokens=int(chosen),
                lr_scale=cfg.init_lr_frac * (1 - step / trainer.steps),
                momentum=MOMENTUM,
                clip=0.0,
            )
            if result is not Update.OUT_OF_MEMORY:
                break
            halve(trainer, cfg)  # then the same answers once more
        tell(trainer, cfg, groups, seconds)
        if trainer.stopped or progress.step == trainer.steps or trainer.due(cfg.save_every):
            trainer.save()
        if trainer.due(cfg.eval_every):
            validate(trainer, cfg, tasks)
    trainer.end()


def halve(trainer: Trainer, cfg: RlConfig) -> None:
    """Half as many answers at a time: the same step. Raises OutOfMemoryError when that is none."""
    progress = trainer.progress
    size = cfg.device_batch_size >> progress.halvings
    if size == 1:
        raise torch.OutOfMemoryError("out of memory with one answer at a time: use a smaller max_new_tokens")
    progress.halvings += 1
    trainer.world.warn(
        f"out of memory at step {progress.step + 1}: going on with device_batch_size {size // 2}, "
        "the same answers a step",
        progress.step,
    )


def answer_within_memory(
    trainer: Trainer, cfg: RlConfig, asked: Sequence[Asked], samples: int, seed: int
) -> tuple[list[list[Rollout]], RlConfig]:
    """`answer`, and with how many lanes it went: halved until memory is enough. Lanes change no answer."""
    while True:
        try:
            return answer(trainer, cfg, asked, samples, seed), cfg
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            lanes = min(cfg.lanes, len(asked) * samples)
            if not out_of_memory(error) or lanes <= 1:
                raise
        gc.collect()  # only here, where the exception no longer holds the frames and their tensors
        if trainer.world.device.type == "cuda":
            torch.cuda.empty_cache()
        cfg = cfg.model_copy(update={"lanes": lanes // 2})
        trainer.world.warn(f"out of memory while answering: going on with {cfg.lanes} lanes")


def problems_of(cfg: RlConfig, tasks: Sequence[Task], step: int) -> list[Asked]:
    """The problems of a step, of all ranks: they depend on the seed and the step alone."""
    rng = random.Random(f"{cfg.seed} {step}")
    drawn = rng.choices(tasks, [task.share for task in tasks], k=cfg.examples_per_step)
    return [(task, task.sample(random.Random(f"{cfg.seed} {step} {i}"))) for i, task in enumerate(drawn)]


def answer(
    trainer: Trainer, cfg: RlConfig, asked: Sequence[Asked], samples: int, seed: int
) -> list[list[Rollout]]:
    """`samples` answers to every problem of this rank, as one continuous batch.

    A sample's random numbers depend on `seed`, the problem's number over all ranks, and its own number.
    """
    world, model, tokenizer = trainer.world, trainer.model, trainer.tokenizer
    prompts = [render_prompt(tokenizer, [{"role": "user", "content": p.question}]) for _, p in asked]
    longest = max(map(len, prompts), default=0)
    if longest >= model.cfg.sequence_len:
        raise DataError(
            f"a prompt of {longest} tokens leaves no room in a context of {model.cfg.sequence_len}"
        )
    tokens = min(longest + cfg.max_new_tokens, model.cfg.sequence_len)
    lanes = max(1, min(cfg.lanes, len(prompts) * samples))
    engine = make_engine(model, tokenizer, lanes, tokens)
    for number, prompt in enumerate(prompts):
        base = _seed(seed, number * world.size + world.rank)
        wishes = [Sampling(cfg.temperature, cfg.top_k, seed=_seed(base, i)) for i in range(samples)]
        engine.add(
            *(Request(str(number), prompt, cfg.max_new_tokens, wish, i) for i, wish in enumerate(wishes))
        )
    ids: list[list[list[int]]] = [[[] for _ in range(samples)] for _ in prompts]
    ended: set[tuple[int, int]] = set()
    while engine.busy:
        for output in engine.step():
            if output.token is not None:
                ids[int(output.id)][output.index].append(output.token)
            elif output.finish == "stop":
                ended.add((int(output.id), output.index))
    engine.runner.close()
    model.train()
    weights = parse_rewards(cfg.rewards)
    return [
        [
            _judged(tokenizer, cfg, weights, one, prompts[n], said, (n, i) in ended)
            for i, said in enumerate(ids[n])
        ]
        for n, one in enumerate(asked)
    ]


def make_engine(model: GPT, tokenizer: Tokenizer, lanes: int, tokens: int) -> Engine:
    """An engine for the model's present weights, its cache no larger than `lanes` answers need."""
    cfg = model.cfg
    size = 4 if model.compute_dtype == torch.float32 else 2
    block_bytes = 2 * cfg.n_layer * cfg.n_kv_head * (cfg.n_embd // cfg.n_head) * BLOCK * size
    blocks = lanes * (tokens // BLOCK + 1)
    on_cpu = model.lm_head.weight.device.type == "cpu"
    options = Options(
        lanes, threads=torch.get_num_threads() if on_cpu else 0, cache_gib=(blocks + 1) * block_bytes / 2**30
    )
    return Engine(make_runner(model, options), tokenizer, lanes)


def _judged(
    tokenizer: Tokenizer, cfg: RlConfig, weights: dict[str, float], asked: Asked, prompt: list[int],
    said: list[int], ended: bool,
) -> Rollout:  # fmt: skip
    task, problem = asked
    given = Answer(task, problem, final_text(tokenizer, said), ended, len(said) / cfg.max_new_tokens)
    values = score(given, weights)
    total = cfg.reward_weight * sum(weights[name] * value for name, value in values.items())
    chosen = chosen_mask(tokenizer, said)
    if ended:  # to end was chosen too
        said, chosen = [*said, tokenizer.special("<|assistant_end|>")], [*chosen, 1]
    row = ([*prompt, *said], [0] * len(prompt) + chosen)
    return Rollout(row, given, values, total, task.evaluate(problem, given.text))


def chosen_mask(tokenizer: Tokenizer, said: Sequence[int]) -> list[int]:
    """1 for tokens that the model chose, 0 for what a tool put in, its marks included."""
    start, end = tokenizer.special("<|output_start|>"), tokenizer.special("<|output_end|>")
    mask, forced = [], False
    for token in said:
        forced = forced or token == start
        mask.append(int(not forced))
        forced = forced and token != end
    return mask


def with_advantages(group: Sequence[Rollout]) -> list[Rollout]:
    """The group, each with its reward minus the mean of all."""
    mean = sum(one.reward for one in group) / len(group)
    return [Rollout(**{**vars(one), "advantage": one.reward - mean}) for one in group]


def micro_batches(rollouts: Sequence[Rollout], size: int) -> list[list[Rollout]]:
    """Answers of similar length together. Those without advantage move nothing: they are left out."""
    found = sorted((one for one in rollouts if one.advantage), key=lambda one: len(one.row[0]))
    found = found or list(rollouts[:1])  # a rank always has something to run
    return [found[at : at + size] for at in range(0, len(found), size)]


def micro_loss(trainer: Trainer, batch: Sequence[Rollout], share: float) -> Tensor:
    """`share` times Σ advantage·(−log p) of the chosen tokens; the head's gradient is in its place."""
    model, device = trainer.model, trainer.world.device
    x_BT, y_BT = collate([one.row for one in batch], trainer.tokenizer, device, model.cos_TR.size(0))
    advantage_B1 = torch.tensor([[one.advantage * share] for one in batch], device=device)
    kept_N = (y_BT.flatten() >= 0).nonzero().squeeze(1)
    missing = -kept_N.numel() % LEARNED_UNIT
    targets_N = F.pad(y_BT.flatten()[kept_N], (0, missing), value=-1)
    weights_N = F.pad(advantage_B1.expand_as(y_BT).flatten()[kept_N], (0, missing))
    x_ND = model.hidden(x_BT).flatten(0, 1)[F.pad(kept_N, (0, missing))]
    head_VD = model.lm_head.weight
    return head_loss(x_ND, head_VD, targets_N, weights_N, grad_VD=head_VD.grad)


def tell(trainer: Trainer, cfg: RlConfig, groups: Sequence[Sequence[Rollout]], seconds: float) -> None:
    """Rewards, pass@k within the groups, lengths and two answers of the step. Collective."""
    world, step = trainer.world, trainer.progress.step
    mine = [one for group in groups for one in group]
    names = list(mine[0].values)
    ks = sorted({1, cfg.num_samples})
    sums = world.sum(
        len(mine), len(groups), sum(one.reward for one in mine), sum(len(one.row[1]) for one in mine),
        sum(one.learned for one in mine), sum(one.answer.ended for one in mine),
        *(sum(one.values[name] for one in mine) for name in names),
        *(sum(pass_at_k(len(g), sum(one.right for one in g), k) for g in groups) for k in ks),
    )  # fmt: skip
    answers, problems, reward, _, chosen, ended, *rest = sums
    values = {
        "reward/mean": reward / answers,
        "rollout/tokens": chosen / answers,
        "rollout/ended": ended / answers,
        "rollout/seconds": seconds,
        "rollout/tok_per_sec": chosen / seconds,
        "mem/peak_bytes": float(world.peak_bytes()),
    }
    values |= {f"reward/{name}": total / answers for name, total in zip(names, rest, strict=False)}
    values |= {f"reward/pass@{k}": total / problems for k, total in zip(ks, rest[len(names) :], strict=True)}
    trainer.metrics |= {"reward/mean": values["reward/mean"], "reward/pass@1": values["reward/pass@1"]}
    world.events.emit("metric", step=step, values=values)
    if trainer.due(cfg.eval_every) or step == 1:
        for one in (groups[0][0], groups[0][-1])[:SHOWN]:
            text = f"{one.answer.text} (reward {one.reward:g})"
            world.events.emit("sample", step=step, prompt=one.answer.problem.question, text=text)
    world.say(
        f"reward {values['reward/mean']:.3f}  pass@1 {values['reward/pass@1']:.3f}  "
        f"{values['rollout/tokens']:.0f} tokens an answer  {values['rollout/tok_per_sec']:,.0f} tok/s"
    )


def validate(trainer: Trainer, cfg: RlConfig, tasks: Sequence[Task]) -> None:
    """pass@k on held-out problems, k = 1, 2, 4, … Collective."""
    world = trainer.world
    trainer.settle()  # the checkpoint is safe before anything else can fail
    each = -(-cfg.eval_examples // len(tasks))
    asked = [(task, problem) for task in tasks for problem in islice(task.held_out, each)]
    mine = asked[world.rank :: world.size]
    groups: list[list[Rollout]] = []
    if mine:
        groups, _ = answer_within_memory(trainer, cfg, mine, cfg.eval_samples, _seed(cfg.seed, -1))
    ks = [k for k in (2**i for i in range(11)) if k <= cfg.eval_samples]
    total, *sums = world.sum(
        len(groups),
        *(sum(pass_at_k(len(g), sum(one.right for one in g), k) for g in groups) for k in ks),
    )
    for k, value in zip(ks, sums, strict=True):
        trainer.report(f"val/pass@{k}", value / total, f"of {total:.0f} held-out problems, {k} answers each")


def _seed(*numbers: int) -> int:
    """One 63-bit number of several, by which random numbers of different places are unlike."""
    return random.Random(" ".join(map(str, numbers))).getrandbits(63)
