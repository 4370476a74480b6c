"""`python -m nanochat.imports DIR`: take over the checkpoints of karpathy/nanochat of late 2025."""

from __future__ import annotations

import argparse
import sys

from nanochat.errors import DataError
from nanochat.paths import base_dir, find_artefact


def main(argv: list[str] | None = None) -> int:
    """Import the newest step of every model below a directory; exit 1 when there is none or one fails."""
    parser = argparse.ArgumentParser(
        prog="nanochat import", description="Take over checkpoints of karpathy/nanochat of late 2025."
    )
    parser.add_argument("directory", help="its base directory, one of its tags, or a model_NNNNNN.pt")
    given = parser.parse_args(argv)
    from nanochat.artefacts import relative
    from nanochat.interop import original
    from nanochat.locks import file_lock

    base, failed = base_dir(), False
    try:
        files = original.model_files(find_artefact(given.directory, base))
    except FileNotFoundError as error:
        return _fail(error)
    if not files:
        return _fail(
            f"{given.directory} holds no model_NNNNNN.pt, neither in itself nor in a tag or stage below"
        )
    for file in files:
        try:
            with file_lock(base / ".import.lock"):
                place = original.adopt(file, base)
            print(f"{relative(place, base)}  from {file}", flush=True)
        except (DataError, OSError) as error:
            failed = bool(_fail(error))
    return int(failed)


def _fail(why: object) -> int:
    print(f"import: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
