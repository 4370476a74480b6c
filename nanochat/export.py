"""`python -m nanochat.export CHECKPOINT --out DIR [--format hf] [--dtype float32|bfloat16]`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from nanochat.errors import DataError
from nanochat.interop.formats import DTYPES, FORMATS
from nanochat.paths import base_dir

#: how much a background export stands back for what else runs on the host
NICE = 10
LEFT_ALONE = 3


def main(argv: list[str] | None = None) -> int:
    """Exit 1 with one sentence when it cannot be exported."""
    parser = argparse.ArgumentParser(prog="nanochat export", description="Write a model for other software.")
    parser.add_argument("checkpoint", help="a path, e.g. chatsft_checkpoints/latest.pt")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new directory")
    parser.add_argument("--format", choices=FORMATS, default="hf", help="hf: for transformers")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--background",
        action="store_true",
        help="with low priority, and until stdin is closed: whoever started this is gone",
    )
    given = parser.parse_args(argv)
    if given.background:
        os.nice(NICE)
        threading.Thread(target=_leave_with_stdin, daemon=True).start()
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


def _leave_with_stdin() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock, held by this thread, would break a usual end
        pass
    os._exit(LEFT_ALONE)


if __name__ == "__main__":
    raise SystemExit(main())
