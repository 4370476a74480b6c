"""CORE of a model: `python scripts/base_eval.py [--checkpoint PATH] [--tasks LABELS]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> None:
    from nanochat.configurator import config_from_argv
    from nanochat.stages import STAGES

    config = config_from_argv(STAGES["base_eval"], sys.argv[1:])
    from nanochat.evals import core  # after the flags: --help loads no torch

    core.run(config)


if __name__ == "__main__":
    main()
