"""Learn from rewards: `python scripts/chat_rl.py [--sft_checkpoint PATH] [--key=value …]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> None:
    from nanochat.configurator import config_from_argv
    from nanochat.stages import STAGES

    config = config_from_argv(STAGES["rl"], sys.argv[1:])
    from nanochat.train import rl  # after the flags: --help loads no torch

    rl.run(config)


if __name__ == "__main__":
    from nanochat.allocator import start_again_with_huge_pages

    start_again_with_huge_pages()
    main()
