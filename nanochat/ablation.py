"""`python -m nanochat.ablation`: what each option of `arch: modern` does to the loss, alone and together.

Every variant is the real `scripts.base_train` on `pydocs`, for a number of steps and several seeds, one
thread each and as many at a time as there are cores: the losses do not depend on the machine's load.
`--minutes 10` compares modern with classic at equal time instead: short runs of both in turn tell the
time of a step, then both train for the steps that fit.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nanochat.common import cores
from nanochat.once import run_once, values_of
from nanochat.stages.base import MODERN

SIZE = {
    "depth": 4, "max_seq_len": 256, "device_batch_size": 8, "total_batch_size": 2048, "num_iterations": 300,
    "eval_every": 100_000, "eval_tokens": 262_144, "sample_every": 0, "core_metric_every": 0,
    "tokenizer": "tokenizer/ablation", "compile": "on",
}  # fmt: skip
VOCAB = 4096
RACE = {"total_batch_size": 8192}


#: options that `arch: modern` leaves out, and the values they are tried with
LEFT_OUT = {
    "rope_base": 100_000.0, "polar_express": True, "matrix_weight_decay": 0.2, "lr_batch_tokens": 524288,
}  # fmt: skip
SCHEDULE = ("warmdown_ratio", "final_lr_frac", "momentum_final")


def variants() -> dict[str, dict[str, Any]]:
    """Classic, every option alone, and all of `arch: modern`."""
    single = {key: {key: value} for key, value in {**MODERN, **LEFT_OUT}.items() if key not in SCHEDULE}
    schedule = {key: MODERN[key] for key in SCHEDULE if key in MODERN}
    return {"classic": {}, **single, "schedule": schedule, "modern": {"arch": "modern"}}


def train(home: Path, name: str, flags: Mapping[str, Any], seed: int, metric: str = "val/bpb") -> float:
    """Median of a metric of one run (validation bits per byte: the last). A second call answers at once."""
    attempt = home / "ablation" / f"{name}-{seed}"
    values = {**SIZE, **flags, "seed": seed, "model_tag": f"{name}-{seed}".lower(), "keep_last": 1}
    found = values_of(run_once(home, attempt, "scripts.base_train", values), metric)
    return found[-1] if metric == "val/bpb" else statistics.median(found)


def race(home: Path, minutes: float, pool: ThreadPoolExecutor, seeds: int) -> dict[str, list[float]]:
    """Bits per byte of classic and modern after the steps that fit into as many minutes of one core."""
    sides: dict[str, dict[str, Any]] = {"classic": {}, "modern": {"arch": "modern"}}
    step_ms: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(5):
        for name, flags in sides.items():
            short = {**flags, **RACE, "num_iterations": 12, "eval_every": 0}
            step_ms[name].append(train(home, f"{name}-time", short, round_, "train/dt_ms"))
    jobs: dict[str, list[Future[float]]] = {name: [] for name in sides}
    for name, flags in sides.items():
        steps = int(minutes * 60_000 / statistics.median(step_ms[name]))
        print(f"{name}: {statistics.median(step_ms[name]):.0f} ms a step, {steps} steps", flush=True)
        sides[name] = {**flags, **RACE, "num_iterations": steps}
    for seed in range(seeds):
        for name, flags in sides.items():
            jobs[name].append(pool.submit(train, home, f"{name}-race", flags, seed))
    return {name: [job.result() for job in found] for name, found in jobs.items()}


def prepare(home: Path) -> None:
    """Corpus and tokenizer."""
    home.mkdir(parents=True, exist_ok=True)
    flags = {"vocab_size": VOCAB, "model_tag": "ablation"}
    run_once(home, home / "ablation" / "tokenizer", "scripts.tok_train", flags)


def table(results: Mapping[str, Sequence[float]]) -> str:
    """Mean over the seeds, and the difference to classic with the standard error of its pairs."""
    lines = [f"{'variant':22}{'bpb':>9}{'against classic':>18}"]
    classic = results["classic"]
    for name, found in results.items():
        pairs = [one / reference - 1 for one, reference in zip(found, classic, strict=True)]
        spread = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
        lines.append(f"{name:22}{statistics.mean(found):9.4f}{statistics.mean(pairs):+12.2%} ± {spread:.2%}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.ablation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--home", required=True, help="directory for corpus, kernels and results; kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0, help="compare at equal time")
    parser.add_argument("--only", default="", help="comma-separated variants beside classic")
    parser.add_argument(
        "--try", dest="tried", default="", help='JSON: further variants, {"name": {flag: value}}'
    )
    given = parser.parse_args(argv)
    home = Path(given.home).resolve()
    chosen = {**variants(), **json.loads(given.tried or "{}")}
    if given.only:
        chosen = {name: chosen[name] for name in ("classic", *given.only.split(","))}
    prepare(home)
    with ThreadPoolExecutor(cores()) as pool:
        if given.minutes > 0:
            print(table(race(home, given.minutes, pool, given.seeds)))
            return 0
        jobs = {
            name: [pool.submit(train, home, name, flags, seed) for seed in range(given.seeds)]
            for name, flags in chosen.items()
        }
        print(table({name: [job.result() for job in found] for name, found in jobs.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
