"""Peak RSS of the real trainer: `scripts.base_train` in a process of its own, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nanochat.planner import Setting
from nanochat.tokenizer import Tokenizer
from nanochat.tokens import TokenStream

STEPS = 2  # the first makes AdamW's state, the second has it during the loss


def setting(
    depth: int, vocab_size: int, seq_len: int, batch: int, dtype: Any, *, compiled: bool, **more: Any
) -> Setting:
    return Setting(depth, vocab_size, seq_len, batch, dtype=dtype, compiled=compiled, device="cpu", **more)


MODERN = {"residual_scalars": True, "value_embeddings": True, "normuon": True}
#: tensors of 32 MiB and more, which glibc gives back to the system
LARGE = (
    setting(4, 8192, 512, 64, "float32", compiled=False),
    setting(4, 8192, 512, 64, "float32", compiled=True),
    setting(4, 8192, 512, 128, "bfloat16", compiled=False),
    setting(4, 8192, 512, 128, "bfloat16", compiled=True),
    setting(4, 8192, 2048, 16, "float32", compiled=False),
    setting(6, 8192, 1024, 24, "float32", compiled=False, activation_checkpoint=True),
    setting(4, 8192, 512, 64, "float32", compiled=False, ranks=2),
    setting(4, 8192, 512, 64, "float32", compiled=False, **MODERN),
)
#: smaller ones, which it keeps in a heap
SMALL = (
    setting(8, 8192, 512, 8, "float32", compiled=False),
    setting(8, 8192, 512, 8, "bfloat16", compiled=False),
    setting(8, 8192, 512, 8, "float32", compiled=True),
    setting(8, 8192, 512, 8, "bfloat16", compiled=True),
    setting(10, 32768, 512, 4, "bfloat16", compiled=False),
    setting(10, 32768, 1024, 4, "float32", compiled=True),
    setting(8, 8192, 2048, 4, "bfloat16", compiled=True),
    setting(10, 8192, 1024, 8, "bfloat16", compiled=False, activation_checkpoint=True),
    setting(8, 8192, 512, 8, "bfloat16", compiled=False, ranks=2),
    setting(8, 8192, 512, 8, "bfloat16", compiled=False, **MODERN),
)


def measured_peak(s: Setting, home: Path) -> int:
    """Bytes of resident memory of the rank that took most, over STEPS steps and the checkpoint.

    `home`: base directory with the tokenizer that `prepare` made for the vocabulary.
    """
    attempt = Path(tempfile.mkdtemp(dir=home))
    flags = {
        "depth": s.depth, "max_seq_len": s.seq_len, "device_batch_size": s.device_batch_size,
        "total_batch_size": s.tokens * s.ranks, "num_iterations": STEPS, "eval_every": 0,
        "sample_every": 0, "core_metric_every": 0, "compile": "on" if s.compiled else "off",
        "tokenizer": f"tokenizer/v{s.vocab_size}", "dtype": s.dtype, "device": "cpu", "keep_last": 1,
        "model_tag": attempt.name.lower().replace("_", "-"), "activation_checkpoint": s.activation_checkpoint,
        "residual_scalars": s.residual_scalars, "value_embeddings": s.value_embeddings,
        "normuon": s.normuon,
    }  # fmt: skip
    launcher = [sys.executable, "-m"]
    if s.ranks > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(s.ranks), "-m"]
    argv = [*launcher, "scripts.base_train", *(f"--{key}={value}" for key, value in flags.items())]
    allocator = {"MALLOC_MMAP_THRESHOLD_": "131072"} if s.tight else {}
    _call(argv, home, NANOCHAT_ATTEMPT_DIR=str(attempt), **allocator)
    lines = (attempt / "events.jsonl").read_text(encoding="utf-8").splitlines()
    values = [event["values"] for event in map(json.loads, lines) if event["kind"] == "metric"]
    return int(max(one["mem/peak_bytes"] for one in values if "mem/peak_bytes" in one))


def prepare(home: Path, vocab_size: int) -> None:
    """A tokenizer of that size below `home` and the data as its tokens, made when there are none.

    A run that has to make the tokens takes some 30 MB more than those after it, and no plan counts that.
    """
    tokenizer = home / "tokenizer" / f"v{vocab_size}"
    if tokenizer.is_dir():
        return
    size, tag = f"--vocab_size={vocab_size}", f"--model_tag={tokenizer.name}"
    _call([sys.executable, "-m", "scripts.tok_train", size, tag], home)
    for data in (home / "base_data").glob("[!.]*"):
        TokenStream(data, Tokenizer.load(tokenizer), split="train").total()


def _call(argv: list[str], home: Path, **environ: str) -> None:
    """One thread: what a thread takes is no part of the plan."""
    known = {"NANOCHAT_BASE_DIR": str(home), "OMP_NUM_THREADS": "1", "NANOCHAT_COMPILE": ""}
    done = subprocess.run(
        argv, env={**os.environ, **known, **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
