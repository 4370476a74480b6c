"""From a model to an engine: which runner, in which precision, with how much memory for its cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from nanochat.common import cores
from nanochat.engine.engine import Engine, Request
from nanochat.engine.native import NativeRunner, Unavailable
from nanochat.engine.runner import BLOCK, Runner
from nanochat.engine.sampling import Sampling
from nanochat.engine.torch_runner import TorchRunner
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

#: rows of prompts beside those that generate: what one pass adds to the time between two tokens
PROMPT_ROWS = {"cpu": 128, "cuda": 512}
#: new tokens from which packing the weights wins its time back
WORTH_PACKING = 500


@dataclass(frozen=True)
class Options:
    """`lanes`: sequences at once. `cache_gib` 0: every lane at full length, or what memory allows."""

    lanes: int = 16
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    threads: int = 0
    """0: all cores but one, because two threads that wait for each other collapse beside another process."""
    cache_gib: float = 0.0


def make_engine(model: GPT, tokenizer: Tokenizer, options: Options = Options()) -> Engine:
    """An engine with the quickest runner there is here. The model must not change afterwards."""
    return Engine(make_runner(model, options), tokenizer, options.lanes)


def make_runner(model: GPT, options: Options = Options()) -> Runner:
    """On a CPU the native runner where it can be built, else torch's; says so once when it cannot."""
    device = model.lm_head.weight.device
    rows = options.lanes + PROMPT_ROWS.get(device.type, 512)
    blocks = cache_blocks(model.cfg, options, device)
    if device.type == "cpu" and os.environ.get("NANOCHAT_NATIVE", "1") != "0":
        precision = options.precision
        if precision == "auto":
            precision = "bfloat16" if model.compute_dtype == torch.bfloat16 else "float32"
        try:
            return NativeRunner(
                model, precision=precision, blocks=blocks, max_rows=rows, threads=threads(options.threads)
            )
        except Unavailable as error:
            print(f"engine: torch serves on this CPU, slower: {error}", file=sys.stderr)
    if options.precision == "int8":
        print("engine: int8 is for the native runner on a CPU; serving without it", file=sys.stderr)
    return TorchRunner(model, blocks=blocks, max_rows=rows)


def threads(wanted: int) -> int:
    """`wanted`, or all cores but one."""
    return wanted or max(1, cores() - 1)


def cache_blocks(cfg: GPTConfig, options: Options, device: torch.device) -> int:
    """Blocks of the cache: every lane at full length, within the budget; one full sequence at least."""
    per_sequence = -(-cfg.sequence_len // BLOCK)
    size = 4 if options.precision in ("auto", "float32") and device.type == "cpu" else 2
    block_bytes = 2 * cfg.n_layer * cfg.n_kv_head * (cfg.n_embd // cfg.n_head) * BLOCK * size
    budget = int(options.cache_gib * 2**30) or _free_bytes(device) // 2
    return max(per_sequence, min(options.lanes * per_sequence, budget // block_bytes))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:  # what can be had without swapping: free pages alone leave out the file cache
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 4 << 30


def generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    seed: int = 0,
    batch_size: int = 8,
) -> list[list[int]]:
    """New ids for every prompt, tool tokens included, without the end token.

    All prompts run as one continuous batch of `batch_size` sequences; the model's training mode is kept.
    Raises ValueError for a prompt that does not fit the context.
    """
    training = model.training
    lanes = max(1, min(batch_size, len(prompts)))
    worth = len(prompts) * max_new_tokens >= WORTH_PACKING
    if worth:
        runner = make_runner(model, Options(lanes))
    else:
        device = model.lm_head.weight.device
        blocks = cache_blocks(model.cfg, Options(lanes), device)
        runner = TorchRunner(model, blocks=blocks, max_rows=lanes + PROMPT_ROWS.get(device.type, 512))
    engine = Engine(runner, tokenizer, lanes)
    answers: list[list[int]] = [[] for _ in prompts]
    for index, prompt in enumerate(prompts):
        sampling = Sampling(temperature, top_k, seed=seed + index)
        engine.add(Request("batch", prompt, max_new_tokens, sampling, index))
    while engine.busy:
        for output in engine.step():
            if output.token is not None:
                answers[output.index].append(output.token)
    runner.close()
    model.train(training)
    return answers
