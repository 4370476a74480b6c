"""Stage `base_loss`: bits per byte on both splits, and a few greedy continuations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from nanochat.artefacts import checkpoint_path, relative
from nanochat.checkpoint import load_model
from nanochat.common import World, cores, setup_training
from nanochat.dataset import ensure
from nanochat.engine import generate_batch
from nanochat.errors import DataError
from nanochat.evals.bpb import bits_per_byte
from nanochat.gpt import GPT
from nanochat.loader import Loader
from nanochat.stages.base_loss import BaseLossConfig
from nanochat.tokenizer import Tokenizer
from nanochat.tokens import TokenStream

SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")
PROMPTS = (
    "The capital of France is",
    "The chemical symbol of gold is",
    "If yesterday was Friday, then tomorrow will be",
    "The opposite of hot is",
    "The planets of the solar system are:",
    "My favorite color is",
    "If 5*x + 3 = 13, then x is",
)


def run(cfg: BaseLossConfig) -> None:
    """Measure one checkpoint. Writes an `eval` event, metrics and samples."""
    with setup_training(cfg, name="base_loss") as world:
        place = world.agree(checkpoint_path(cfg.checkpoint, world.base, ("base", "mid", "sft", "rl")))
        world.phase("data")
        corpus = ensure(cfg.data, world.base, say=world.say)
        model, tokenizer, meta = load_model(place, world.device, world.dtype)
        model.eval()
        step = int(meta.get("step", 0))
        world.phase("eval", steps=step)
        world.say(f"base_loss: {relative(place, world.base)}")
        values: dict[str, float] = {}
        counts: dict[str, int] = {}
        for split in SPLITS:
            values[split], counts[split] = measure(cfg, world, model, tokenizer, corpus, split)
            world.say(f"  {split:5} {values[split]:.4f} bits per byte ({counts[split]:,} tokens)")
        details = {"unit": "bits per byte", "checkpoint": relative(place, world.base), "data": cfg.data}
        world.events.emit("eval", step=step, name="base_loss", values=values, counts=counts, details=details)
        metrics = {f"base_loss/{split}_bpb": value for split, value in values.items()}
        world.events.emit("metric", step=step, values=metrics)
        if world.is_master:
            samples(cfg, world, model, tokenizer, step)
        peak = max(world.gather(world.peak_bytes()))
        world.events.emit("end", step=step, status="succeeded", peak_bytes=peak)


def measure(
    cfg: BaseLossConfig,
    world: World,
    model: GPT,
    tokenizer: Tokenizer,
    corpus: Path,
    split: Literal["train", "val"],
) -> tuple[float, int]:
    """(bits per byte, tokens measured) of the first `split_tokens` of a split. Collective.

    Raises DataError when the split is shorter than one forward pass of all ranks.
    """
    threads = max(1, min(4, cores() // world.local_size - 1))
    stream = TokenStream(corpus, tokenizer, split=split, threads=threads)
    T = model.cfg.sequence_len
    unit = cfg.device_batch_size * T * world.size
    count = min(cfg.split_tokens, stream.total() - 1) // unit
    if count < 1:
        raise DataError(
            f"split {split} has {stream.total():,} tokens and split_tokens is {cfg.split_tokens:,}, one pass "
            f"needs {unit:,}: use a smaller device_batch_size, more split_tokens or a larger corpus"
        )
    loader = Loader(
        stream, batch=cfg.device_batch_size, seq_len=T, rank=world.rank, size=world.size, device=world.device
    )
    token_bytes_V = torch.from_numpy(tokenizer.token_bytes).to(world.device)
    return bits_per_byte(model, loader, count, token_bytes_V, world), count * unit


def samples(cfg: BaseLossConfig, world: World, model: GPT, tokenizer: Tokenizer, step: int) -> None:
    """Greedy continuations as `sample` events; prompts that do not fit the context are left out, and said."""
    prompts = {text: [tokenizer.bos, *tokenizer.encode(text)] for text in PROMPTS if cfg.max_new_tokens}
    fitting = {text: ids for text, ids in prompts.items() if len(ids) < model.cfg.sequence_len}
    if len(fitting) < len(prompts):
        world.warn(f"{len(prompts) - len(fitting)} prompt(s) do not fit the context and were left out")
    if not fitting:
        return
    answers = generate_batch(
        model, tokenizer, list(fitting.values()), max_new_tokens=cfg.max_new_tokens, batch_size=len(fitting)
    )
    for prompt, ids in zip(fitting, answers, strict=True):
        text = tokenizer.decode(ids)
        world.events.emit("sample", step=step, prompt=prompt, text=text)
        world.say(f"sample: {prompt}{text!r}")
