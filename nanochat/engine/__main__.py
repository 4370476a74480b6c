"""`python -m nanochat.engine --checkpoint DIR --socket PATH`: load a model and serve it.

Connects to a Unix socket its parent listens on, and ends when that is closed: no parent, no engine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanochat.engine")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--socket", required=True, help="Unix socket to connect to")
    parser.add_argument("--slots", type=int, default=16, help="sequences generated at once")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores but one")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    args = parser.parse_args()

    import torch

    from nanochat.checkpoint import BrokenCheckpoint, load_model
    from nanochat.engine import Engine, generate_batch
    from nanochat.engine.server import EngineServer

    torch.set_num_threads(args.threads or max(1, (os.cpu_count() or 2) - 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # float32 on CPUs: there a request gets the same tokens alone or in a batch
    quick = args.dtype == "bfloat16" or (args.dtype == "auto" and device.type == "cuda")
    try:
        model, tokenizer, _ = load_model(args.checkpoint, device, torch.bfloat16 if quick else torch.float32)
    except (BrokenCheckpoint, OSError) as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    generate_batch(model, tokenizer, [[tokenizer.bos]], max_new_tokens=2)  # warm up
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(args.socket)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent has gone
            EngineServer(Engine(model, tokenizer, args.slots), connection).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
