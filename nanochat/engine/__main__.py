"""`python -m nanochat.engine --checkpoint DIR --socket PATH`: load a model and serve it.

Connects to a Unix socket its parent listens on, and ends when that is closed: no parent, no engine.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanochat.engine")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--socket", required=True, help="Unix socket to connect to")
    parser.add_argument("--slots", type=int, default=16, help="sequences generated at once")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores but one")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument(
        "--quantize", choices=["none", "int8"], default="none", help="weights in 8 bits (CPU)"
    )
    parser.add_argument("--kv-gib", type=float, default=0.0, help="memory of the cache; 0: what is needed")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--remote", default="", help="OpenAI-compatible engine that has the model instead")
    parser.add_argument("--model", default="", help="its name there; default: its only one")
    args = parser.parse_args()
    return render(args) if args.remote else serve(args)


def render(args: argparse.Namespace) -> int:
    """Speak for a model that runs elsewhere: tokenizer and chat format come from the checkpoint."""
    import json

    from nanochat.engine.remote import RemoteServer, upstream
    from nanochat.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(args.checkpoint)
        context = json.loads((args.checkpoint / "meta.json").read_text())["model_config"]["sequence_len"]
        there = upstream(args.remote, args.model)
    except (OSError, ValueError, KeyError) as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    return _connected(args.socket, lambda link: RemoteServer(tokenizer, context, link, there).run())


def serve(args: argparse.Namespace) -> int:
    """Load the model and generate."""
    import torch

    from nanochat.checkpoint import BrokenCheckpoint, load_model
    from nanochat.engine import Options, Request, make_engine
    from nanochat.engine.make import threads
    from nanochat.engine.server import EngineServer

    torch.set_num_threads(threads(args.threads))
    name = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    precision = "bfloat16" if args.dtype == "auto" else args.dtype
    try:
        model, tokenizer, _ = load_model(args.checkpoint, device, getattr(torch, precision))
    except (BrokenCheckpoint, OSError) as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    options = Options(
        lanes=args.slots,
        precision="int8" if args.quantize == "int8" else precision,  # type: ignore[arg-type]
        threads=args.threads,
        cache_gib=args.kv_gib,
    )
    engine = make_engine(model, tokenizer, options)
    del model  # packed by the native runner: its float32 weights are not needed any more
    engine.add(Request("warm-up", [tokenizer.bos] * max(1, min(64, engine.context - 4)), 2))
    while engine.busy:
        engine.step()
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection has to look at it
    return _connected(args.socket, lambda connection: EngineServer(engine, connection).run())


def _connected(path: str, run: Callable[[socket.socket], None]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent has gone
            run(connection)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    raise SystemExit(main())
