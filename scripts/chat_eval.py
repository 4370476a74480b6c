"""Score a model on chat tasks: `python scripts/chat_eval.py [--checkpoint PATH] [-a TASKS]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> None:
    from nanochat.configurator import config_from_argv
    from nanochat.stages import STAGES

    config = config_from_argv(STAGES["chat_eval"], sys.argv[1:])
    from nanochat.evals import chat  # after the flags: --help loads no torch

    chat.run(config)


if __name__ == "__main__":
    main()
