"""`python -m nanochat.ablation`: what each option of `arch: modern` does to the loss, alone and together.

Every variant is the real `scripts.base_train` on `pydocs`, for a number of steps and several seeds, one
thread each and as many at a time as there are cores: the losses do not depend on the machine's load.
Not covered: speed (see `python -m nanochat.bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nanochat.common import cores
from nanochat.stages.base import MODERN

SIZE = {
    "depth": 4, "max_seq_len": 256, "device_batch_size": 8, "total_batch_size": 2048, "num_iterations": 300,
    "eval_every": 100_000, "eval_tokens": 262_144, "sample_every": 0, "core_metric_every": 0,
    "tokenizer": "tokenizer/ablation", "compile": "on",
}  # fmt: skip
VOCAB = 4096


#: options that `arch: modern` leaves out, and the values they are tried with
LEFT_OUT = {"polar_express": True, "matrix_weight_decay": 0.2, "lr_batch_tokens": 524288}
SCHEDULE = ("warmdown_ratio", "final_lr_frac", "momentum_final")


def variants() -> dict[str, dict[str, Any]]:
    """Classic, every option alone, and all of `arch: modern`."""
    single = {key: {key: value} for key, value in {**MODERN, **LEFT_OUT}.items() if key not in SCHEDULE}
    schedule = {key: MODERN[key] for key in SCHEDULE if key in MODERN}
    return {"classic": {}, **single, "schedule": schedule, "modern": {"arch": "modern"}}


def train(home: Path, name: str, flags: Mapping[str, Any], seed: int) -> float:
    """Validation bits per byte at the end of one run. Kept, so that a second call answers at once."""
    attempt = home / "ablation" / f"{name}-{seed}"
    events = attempt / "events.jsonl"
    values = {**SIZE, **flags, "seed": seed, "model_tag": f"{name}-{seed}".lower(), "keep_last": 1}
    wanted = json.dumps(values, sort_keys=True)
    if not (attempt / "values.json").exists() or (attempt / "values.json").read_text() != wanted:
        attempt.mkdir(parents=True, exist_ok=True)
        events.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "scripts.base_train", *(f"--{key}={v}" for key, v in values.items())]
        environ = {**os.environ, "NANOCHAT_BASE_DIR": str(home), "NANOCHAT_ATTEMPT_DIR": str(attempt)}
        with (attempt / "run.log").open("wb") as log:
            subprocess.run(
                argv, check=True, stdout=log, stderr=log, env={**environ, "OMP_NUM_THREADS": "1"}, cwd=home
            )
        (attempt / "values.json").write_text(wanted)
    metrics = [json.loads(line) for line in events.read_text().splitlines()]
    return [one["values"]["val/bpb"] for one in metrics if "val/bpb" in one.get("values", {})][-1]


def prepare(home: Path) -> None:
    """Corpus and tokenizer."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "tokenizer" / "ablation").exists():
        argv = [sys.executable, "-m", "scripts.tok_train", f"--vocab_size={VOCAB}", "--model_tag=ablation"]
        subprocess.run(argv, check=True, env={**os.environ, "NANOCHAT_BASE_DIR": str(home)}, cwd=home)


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
        jobs = {
            name: [pool.submit(train, home, name, flags, seed) for seed in range(given.seeds)]
            for name, flags in chosen.items()
        }
        print(table({name: [job.result() for job in found] for name, found in jobs.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
