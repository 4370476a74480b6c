"""`python -m nanochat.bench_rollouts`: answers for rl in one continuous batch against one prompt at a time.

Both sides are the engine that rl uses, with 64 lanes and with one; the same requests, the same random
numbers, so the same tokens; in turn, medians of the rounds. Weights are random: no answer ends by itself.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanochat.gpt import GPT
    from nanochat.tokenizer import Tokenizer

VOCAB, CONTEXT, ANSWERS, PROMPT, TOKENS = 4096, 1024, 64, 32, 64
Drawn = dict[tuple[str, int], list[int]]


def rollouts(model: GPT, tokenizer: Tokenizer, lanes: int) -> tuple[Drawn, float]:
    """Tokens of every answer, four to a prompt, and the seconds it took, the engine's making included."""
    from nanochat.engine.engine import Request
    from nanochat.engine.sampling import Sampling
    from nanochat.train.rl import make_engine

    rng = random.Random(0)
    started = time.perf_counter()
    engine = make_engine(model, tokenizer, lanes, PROMPT + TOKENS)
    for number in range(ANSWERS // 4):
        prompt = [rng.randrange(300, VOCAB) for _ in range(PROMPT)]
        for i in range(4):
            wish = Sampling(1.0, 50, seed=4 * number + i)
            engine.add(Request(str(number), prompt, TOKENS, wish, i, ignore_eos=True))
    found: Drawn = {}
    while engine.busy:
        for output in engine.step():
            if output.token is not None:
                found.setdefault((output.id, output.index), []).append(output.token)
    engine.runner.close()
    return found, time.perf_counter() - started


def measure(depth: int, rounds: int) -> str:
    """One line of results."""
    import torch

    from nanochat.common import resolve_device, resolve_dtype
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.tokenizer import Tokenizer

    device = resolve_device("auto", 0)
    dtype = resolve_dtype("auto", device)  # what rl takes here
    torch.manual_seed(0)
    model = GPT(GPTConfig.from_depth(depth, VOCAB, CONTEXT), dtype)
    model.init_weights()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.02)
    model.to(device).eval()
    tokenizer = Tokenizer.train(iter(["a b c d e f g " * 50]), 300)
    times: dict[int, list[float]] = {1: [], ANSWERS: []}
    drawn: dict[int, Drawn] = {}
    for _ in range(rounds):
        for lanes, found in times.items():
            drawn[lanes], seconds = rollouts(model, tokenizer, lanes)
            found.append(seconds)
    alone, together = (statistics.median(times[lanes]) for lanes in (1, ANSWERS))
    same = sum(drawn[1][key] == drawn[ANSWERS][key] for key in drawn[1])
    tokens = ANSWERS * TOKENS
    return (
        f"d{depth} {str(dtype).removeprefix('torch.'):9}{tokens / alone:10,.0f}{tokens / together:10,.0f}"
        f" tok/s{alone / together:8.2f} ×   {same} of {ANSWERS} answers the same"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_rollouts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depths", default="4,8")
    given = parser.parse_args(argv)
    print(f"{'':12}{'one':>10}{f'{ANSWERS} lanes':>10}")
    for depth in map(int, given.depths.split(",")):
        print(measure(depth, given.rounds), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
