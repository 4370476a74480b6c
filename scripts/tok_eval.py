"""Compression of a tokenizer: `python scripts/tok_eval.py [--tokenizer PATH]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> None:
    from nanochat.configurator import config_from_argv
    from nanochat.stages import STAGES

    config = config_from_argv(STAGES["tok_eval"], sys.argv[1:])
    from nanochat.evals import tokenizers  # after the flags: --help loads no torch

    tokenizers.run(config)


if __name__ == "__main__":
    main()
