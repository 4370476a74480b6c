"""`python -m nanochat.export CHECKPOINT --out DIR [--format hf] [--dtype float32|bfloat16]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nanochat.errors import DataError
from nanochat.paths import base_dir


def main(argv: list[str] | None = None) -> int:
    """Exit 1 with one sentence when it cannot be exported."""
    parser = argparse.ArgumentParser(prog="nanochat export", description="Write a model for other software.")
    parser.add_argument("checkpoint", help="a path, e.g. chatsft_checkpoints/latest.pt")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new directory")
    parser.add_argument("--format", choices=["hf"], default="hf", help="hf: for transformers")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args(argv)
    import torch

    from nanochat.artefacts import checkpoint_path
    from nanochat.checkpoint import BrokenCheckpoint
    from nanochat.interop import hf

    try:
        place = checkpoint_path(given.checkpoint, base_dir(), ())
        files = hf.export(place, Path(given.out), getattr(torch, given.dtype))
    except (DataError, BrokenCheckpoint, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    print(f"load it with AutoModelForCausalLM.from_pretrained({given.out!r})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
