"""Train a tokenizer: `python scripts/tok_train.py [--vocab_size N] [--data_dir DIR] [--output_dir DIR]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> None:
    from nanochat.configurator import config_from_argv
    from nanochat.stages import STAGES

    config = config_from_argv(STAGES["tokenizer"], sys.argv[1:])
    from nanochat.train import tokenizer  # after the flags: --help loads no torch

    tokenizer.run(config)


if __name__ == "__main__":
    main()
