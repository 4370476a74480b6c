"""Talk to a checkpoint in the terminal: `python scripts/chat_cli.py [--checkpoint PATH] [-p PROMPT]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> int:
    from nanochat import chat_cli

    return chat_cli.main(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
