"""`python -m nanochat.bench_loss`: memory and time of the loss, against the loss that holds all logits.

Vocabulary 65,536, 4 × 2,048 tokens, forward and backward, each side in a process of its own and in turn.
The plain side is softcap and `F.cross_entropy` on the whole logits, eager as users write it and compiled.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

V, N, D = 65536, 4 * 2048, 256
SIDES = ("plain eager", "plain compiled", "chunked")


def child(side: str) -> dict[str, float]:
    """Peak memory above what the inputs take, in bytes, and the median seconds of a pass."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from nanochat import compiling
    from nanochat.loss import SOFTCAP, head_loss

    torch.manual_seed(0)
    x_ND = torch.randn(N, D, dtype=torch.bfloat16, requires_grad=True)
    head_VD = torch.nn.Parameter(torch.randn(V, D) * 0.02)
    grad_VD = head_VD.grad = torch.zeros(V, D)
    targets_N, share_N = torch.randint(0, V, (N,)), torch.full((N,), 1 / N)

    def plain(x: Tensor, head: Tensor) -> Tensor:
        logits = SOFTCAP * torch.tanh((x @ head.to(x.dtype).T).float() / SOFTCAP)
        return F.cross_entropy(logits, targets_N)

    def chunked(x: Tensor, head: Tensor) -> Tensor:
        return head_loss(x, head, targets_N, share_N, grad_VD=grad_VD)

    if side == "chunked":
        from pathlib import Path
        from tempfile import gettempdir

        compiling.switch_on(Path(gettempdir()) / "nanochat-bench-kernels", torch.device("cpu"))
    loss = {"plain eager": plain, "plain compiled": torch.compile(plain), "chunked": chunked}[side]
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(6):
        started = time.perf_counter()
        torch.autograd.backward(loss(x_ND, head_VD))
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"bytes": (peak - start) * 1024.0, "seconds": statistics.median(times[1:])}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_loss", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.child:
        print(json.dumps(child(given.child)))
        return 0
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(given.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "nanochat.bench_loss", "--child", side]
            found[side].append(json.loads(subprocess.check_output(command)))
    print(f"{'loss':16}{'GiB':>7}{'ms':>8}")
    for side, rounds in found.items():
        bytes_, seconds = (statistics.median(one[key] for one in rounds) for key in ("bytes", "seconds"))
        print(f"{side:16}{bytes_ / 2**30:7.2f}{seconds * 1000:8.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
