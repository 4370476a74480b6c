"""`python -m nanochat.bench_eval`: CORE's scoring in batches against one example per forward pass.

Random ids in CORE's shapes and proportions (11 of its 22 tasks are multiple choice, 2 schema, 9 language
modelling; mostly ten worked examples), the same model on both sides, in turn; medians of the rounds.
Not covered: reading and tokenising the examples, which both need.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

DEPTH, VOCAB, CONTEXT = 4, 8192, 1024
#: (worked examples, choices) of 22 tasks
KINDS = [(10, 4), (10, 1)] * 9 + [(10, 4), (0, 2)] * 2


def groups(count: int, seed: int = 0) -> list[list[tuple[list[int], int]]]:
    """Random ids in the shapes of CORE: (ids, start) of every choice."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        shots, choices = KINDS[number % len(KINDS)]
        common = [rng.randrange(VOCAB) for _ in range(rng.randint(20, 40) * (shots + 1))]
        group = []
        for _ in range(choices):
            ids = [*common, *(rng.randrange(VOCAB) for _ in range(rng.randint(3, 15)))]
            group.append((ids, len(common)))
        found.append(group)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_eval", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=44)
    given = parser.parse_args(argv)
    import torch

    from nanochat.engine.make import Options, make_runner
    from nanochat.evals.plain import plain_continuations
    from nanochat.evals.scoring import Continuation, Scorer
    from nanochat.gpt import GPT, GPTConfig

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = GPTConfig.from_depth(DEPTH, VOCAB, CONTEXT)
    model = GPT(cfg, torch.float32)
    model.init_weights()
    with torch.no_grad():
        for weight in model.parameters():  # so that no two choices are alike
            weight.add_(torch.randn_like(weight), alpha=0.02)
    model.to(device).eval()
    examples = groups(given.examples)
    scorer = Scorer(make_runner(model, Options(16, precision="float32", threads=torch.get_num_threads())))
    sides: dict[str, Callable[[], list[list[Continuation]]]] = {
        "batched": lambda: scorer.continuations(examples),
        "one at a time": lambda: [plain_continuations(model, group) for group in examples],
        "one at a time, logits of the answer only": lambda: [
            plain_continuations(model, group, answer_only=True) for group in examples
        ],
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    losses = {}
    for _ in range(given.rounds):
        for side, score in sides.items():
            started = time.perf_counter()
            groups_scored = score()
            times[side].append(time.perf_counter() - started)
            losses[side] = [one.loss for group in groups_scored for one in group]
    apart = max(
        abs(one - other)
        for found in losses.values()
        for one, other in zip(found, losses["batched"], strict=True)
    )
    medians = {side: statistics.median(found) for side, found in times.items()}
    for side, seconds in medians.items():
        factor = seconds / medians["batched"]
        print(f"{side:42}{given.examples / seconds:8.1f} examples/s; batched is {factor:.2f} × as fast")
    print(f"losses differ by {apart:.1e} at most")
    print(f"d{DEPTH}, float32, {device}, {torch.get_num_threads()} torch thread(s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
