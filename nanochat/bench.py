"""`python -m nanochat.bench`: training speed here, against transformers' NanoChat with AdamW.

Every figure is the median of rounds; a round runs all sides one after another, each in a process of its
own, so that noise of the machine meets all of them. Ours is the real `scripts.base_train` on `pydocs`.
Not covered: GPUs with more than one rank; start-up (see `python -m server.bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEPTH, SEQ, BATCH, VOCAB = 4, 512, 4, 8192
MFLOP = 37.75e6  # a token of this model: 6·(N − V·D) + 12·L·D·T
SKIPPED = 2  # first steps: caches are cold


@dataclass(frozen=True)
class Side:
    """One way to train the same model."""

    name: str
    accumulation: int = 4
    dtype: str = "auto"
    ranks: int = 1
    threads: int = 2
    peer: bool = False


SIDES = (
    Side("peer", dtype="float32", peer=True),
    Side("ours"),
    Side("ours fp32", dtype="float32"),
    Side("ours 2 ranks", ranks=2, threads=1),
    Side("peer acc 1", 1, "float32", peer=True),
    Side("ours acc 1", 1),
)


def run_ours(side: Side, home: Path, steps: int) -> dict[str, float]:
    """Median tokens per second, share of the optimizer, peak RSS of the real trainer."""
    attempt = Path(tempfile.mkdtemp(dir=home))
    total = SEQ * BATCH * side.accumulation
    flags = {
        "depth": DEPTH, "max_seq_len": SEQ, "device_batch_size": BATCH // side.ranks,
        "total_batch_size": total, "num_iterations": steps, "eval_every": 0, "sample_every": 0,
        "core_metric_every": 0, "compile": "on", "tokenizer": "tokenizer/bench", "dtype": side.dtype,
        "model_tag": "bench", "keep_last": 1,
    }  # fmt: skip
    launcher = [sys.executable, "-m"]
    if side.ranks > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(side.ranks), "-m"]
    argv = [*launcher, "scripts.base_train", *(f"--{key}={value}" for key, value in flags.items())]
    environ = {
        **os.environ,
        "NANOCHAT_BASE_DIR": str(home),
        "NANOCHAT_ATTEMPT_DIR": str(attempt),
        "OMP_NUM_THREADS": str(side.threads),
    }
    subprocess.run(argv, check=True, env=environ, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in (attempt / "events.jsonl").read_text().splitlines()]
    values = [event["values"] for event in events if event["kind"] == "metric"]
    measured = [one for one in values if "train/dt_ms" in one][SKIPPED:]
    step_ms = statistics.median(one["train/dt_ms"] for one in measured)
    return {
        "tok_s": total / step_ms * 1000,
        "optimizer": statistics.median(one["train/opt_ms"] for one in measured) / step_ms,
        "rss_mb": max(one["mem/peak_bytes"] for one in values if "mem/peak_bytes" in one) / 1e6,
    }


def run_peer(side: Side, steps: int) -> dict[str, float]:
    """The same of transformers' model with torch's fused AdamW, eager; in this process."""
    import torch
    from transformers import NanoChatConfig, NanoChatForCausalLM

    torch.set_num_threads(side.threads)
    width = 64 * DEPTH
    config = NanoChatConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=DEPTH,
        num_attention_heads=width // 128, num_key_value_heads=width // 128, max_position_embeddings=SEQ,
        use_cache=False,
    )  # fmt: skip
    model = NanoChatForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    times, shares = [], []
    for _ in range(steps):
        started = time.perf_counter()
        for _ in range(side.accumulation):
            ids = torch.randint(0, VOCAB, (BATCH, SEQ))
            loss = model(input_ids=ids, labels=ids).loss / side.accumulation
            loss.backward()
        stepping = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
        shares.append((time.perf_counter() - stepping) / times[-1])
    return {
        "tok_s": SEQ * BATCH * side.accumulation / statistics.median(times[SKIPPED:]),
        "optimizer": statistics.median(shares[SKIPPED:]),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def matmul_peak(dtype: str) -> float:
    """FLOP/s of square matrix products here, the best of a few."""
    import torch

    torch.set_num_threads(2)
    a = torch.randn(2048, 2048).to(getattr(torch, dtype))
    best = 0.0
    for _ in range(12):
        started = time.perf_counter()
        a @ a
        best = max(best, 2 * 2048**3 / (time.perf_counter() - started))
    return best


def prepare(home: Path) -> None:
    """Corpus and tokenizer, and every kernel compiled once."""
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(home)}
    flags = [f"--vocab_size={VOCAB}", "--model_tag=bench"]
    subprocess.run([sys.executable, "-m", "scripts.tok_train", *flags], check=True, env=environ)


def child(name: str, steps: int) -> dict[str, float]:
    side = next(side for side in SIDES if side.name == name)
    return run_peer(side, steps)


def report(rounds: list[dict[str, dict[str, float]]], peaks: dict[str, float]) -> str:
    """The table that docs/LOG.md takes."""

    def median(side: str, key: str) -> float:
        return statistics.median(one[side][key] for one in rounds)

    def ratio(a: str, b: str, key: str = "tok_s") -> float:
        return statistics.median(one[a][key] / one[b][key] for one in rounds)

    lines = [f"{'side':14}{'tok/s':>8}{'optimizer':>11}{'RSS MB':>8}"]
    for side in SIDES:
        share, rss = median(side.name, "optimizer"), median(side.name, "rss_mb")
        lines.append(f"{side.name:14}{median(side.name, 'tok_s'):8,.0f}{share:11.1%}{rss:8,.0f}")
    lines += [
        f"ours / peer                          {ratio('ours', 'peer'):.2f}×",
        f"ours / peer, accumulation 1          {ratio('ours acc 1', 'peer acc 1'):.2f}×",
        f"ours fp32 / peer                     {ratio('ours fp32', 'peer'):.2f}×",
        f"2 ranks × 1 thread / 1 × 2           {ratio('ours 2 ranks', 'ours'):.2f}×",
        f"peak RSS, ours / peer                {ratio('ours', 'peer', 'rss_mb'):.2f}×",
        f"bf16 matrix products                 {peaks['bfloat16'] / 1e9:.0f} GFLOP/s, "
        f"ours uses {median('ours', 'tok_s') * MFLOP / peaks['bfloat16']:.0%}",
        f"fp32 matrix products                 {peaks['float32'] / 1e9:.0f} GFLOP/s, "
        f"ours uses {median('ours fp32', 'tok_s') * MFLOP / peaks['float32']:.0%}",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--home", default="", help="keep corpus, tokenizer and kernels here between calls")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.child:
        print(json.dumps(child(given.child, given.steps)))
        return 0
    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as temporary:
        home = Path(given.home or temporary)
        home.mkdir(parents=True, exist_ok=True)
        prepare(home)
        for side in SIDES:  # compiles what is not compiled yet
            if not side.peer:
                run_ours(side, home, 3)
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(given.rounds):
            rounds.append({})
            for side in SIDES:
                if side.peer:
                    command = [sys.executable, "-m", "nanochat.bench", "--child", side.name]
                    command += ["--steps", str(given.steps)]
                    rounds[-1][side.name] = json.loads(subprocess.check_output(command))
                else:
                    rounds[-1][side.name] = run_ours(side, home, given.steps)
                print(
                    f"round {number + 1}: {side.name}: {rounds[-1][side.name]['tok_s']:,.0f} tok/s",
                    flush=True,
                )
        print(report(rounds, {dtype: matmul_peak(dtype) for dtype in ("bfloat16", "float32")}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
