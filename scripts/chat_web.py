"""A chat page for a checkpoint: `python scripts/chat_web.py [--checkpoint PATH] [--port 8000]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a bare checkout


def main() -> int:
    from nanochat import chat_web

    return chat_web.main(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
