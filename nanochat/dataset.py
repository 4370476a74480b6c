"""The training text: `python -m nanochat.dataset [-n FILES] [-w WORKERS] [--source SOURCE]`.

Sources: `pydocs` (docstrings on this machine, needs no network), `fineweb-edu`, `climbmix` (downloads),
or a directory or file of txt, md, jsonl or parquet. Each becomes parquet shards below
`base_data/<source>/`; the last shard is the validation split. Stages build what they need by themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nanochat.errors import DataError
from nanochat.locks import file_lock
from nanochat.paths import base_dir, find_artefact
from nanochat.sources import folder, hub, pydocs
from nanochat.sources.shards import INFO, shards, write_shards

AUTO_FILES = 8  # training shards that a stage downloads by itself: about 0.8 GB


def corpus_dir(source: str, base: Path) -> Path:
    """Where the shards of `source` lie (or will). Raises DataError for an unknown one."""
    if source == "pydocs" or source in hub.CORPORA:
        return base / "base_data" / source
    place = _folder(source, base)
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:8]
    return base / "base_data" / f"{place.name or 'root'}-{digest}"


def ensure(
    source: str,
    base: Path,
    *,
    files: int | None = None,
    workers: int = 4,
    say: Callable[[str], None] = print,
) -> Path:
    """The directory of the corpus, built or downloaded first when it is not there.

    One process builds, others wait for it. `files`: training shards to have (downloads only); None:
    whatever is there, else 8. Raises DataError with what to do.
    """
    place = corpus_dir(source, base)
    with file_lock(place.with_name(f".{place.name}.lock")):
        if source in hub.CORPORA:
            if files is not None or len(shards(place)) < 2:
                say(f"fetching {source} into {place}")
                hub.download(hub.CORPORA[source], place, AUTO_FILES if files is None else files, workers, say)
        elif source == "pydocs":
            if len(shards(place)) < 2:
                _build(place, source, pydocs.documents, say)
        else:
            _ensure_folder(place, _folder(source, base), say)
    return place


def _ensure_folder(place: Path, given: Path, say: Callable[[str], None]) -> None:
    identity = folder.fingerprint(given)
    stamp = place / "files.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == identity and len(shards(place)) >= 2:
        return
    _build(place, str(given), lambda: folder.documents(given), say)
    stamp.write_text(json.dumps(identity))


def _build(place: Path, source: str, read: Callable[[], list[str]], say: Callable[[str], None]) -> None:
    started = time.monotonic()
    write_shards(place, read(), source)
    info = json.loads((place / INFO).read_text())
    took_s = time.monotonic() - started
    size = f"{info['documents']:,} documents, {info['chars'] / 1e6:.1f}M characters"
    say(f"corpus {source}: {size}, {took_s:.1f} s")


def _folder(source: str, base: Path) -> Path:
    known = ", ".join(["pydocs", *hub.CORPORA])
    try:
        place = find_artefact(source, base)
    except FileNotFoundError:
        raise DataError(
            f"no corpus {source!r}: use {known}, or an existing directory or file of text"
        ) from None
    if place.is_file() and place.suffix.lower() not in folder.SUFFIXES:
        raise DataError(f"{place} is no text: a file ends in {', '.join(folder.SUFFIXES)}; or use {known}")
    return place


def main(argv: list[str] | None = None) -> int:
    """Build or download a corpus. Exit 1 with one sentence when it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m nanochat.dataset", description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--num_files", "--num-files", type=int, default=None, metavar="N",
                        help=f"training shards to download, -1: all (default {AUTO_FILES})")  # fmt: skip
    parser.add_argument("-w", "--num_workers", "--num-workers", type=int, default=4, metavar="N",
                        help="downloads at a time (default 4)")  # fmt: skip
    parser.add_argument(
        "--source", default="pydocs", help="pydocs, fineweb-edu, climbmix, or a directory or file"
    )
    given = parser.parse_args(argv)
    files = given.num_files if given.num_files is not None else AUTO_FILES
    try:
        place = ensure(given.source, base_dir(), files=files, workers=given.num_workers)
    except (DataError, OSError) as error:
        print(f"dataset: {error}", file=sys.stderr)
        return 1
    print(f"{len(shards(place))} shards in {place}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
