"""`python -m nanochat.report [generate|reset] [--json]`: the sections below `report/` as one report."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from nanochat.paths import base_dir
from nanochat.report.scores import table, table_markdown
from nanochat.report.section import SLUGS, Section, all_scores, order, report_markdown

TITLE = "nanochat report"
WHOLE = "report.md"


def read(directory: Path) -> list[Section]:
    """Sections on disk, in the order of the pipeline; a file that is none of ours is named and left out."""
    found = []
    for file in sorted(directory.glob("*.json")):
        try:
            found.append(Section.from_json(json.loads(file.read_text(encoding="utf-8"))))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            print(f"report: {file} is no section of a report ({type(error).__name__})", file=sys.stderr)
    return sorted(found, key=order)


def generate(directory: Path) -> Path:
    """Write `report.md` from the sections. Raises FileNotFoundError when there are none."""
    sections = read(directory)
    if not sections:
        raise FileNotFoundError(f"{directory} holds no section yet: run a stage first")
    whole = directory / WHOLE
    whole.write_text(report_markdown(TITLE, sections), encoding="utf-8")
    return whole


def reset(directory: Path) -> int:
    """Remove the sections and the report; other files stay. Returns how many files went."""
    names = {WHOLE, *(f"{slug}{suffix}" for slug in SLUGS.values() for suffix in (".md", ".json"))}
    there = [directory / name for name in names if (directory / name).is_file()]
    for file in there:
        file.unlink()
    return len(there)


def main(argv: list[str] | None = None) -> int:
    """Exit 1 when there is nothing to report."""
    parser = argparse.ArgumentParser(prog="python -m nanochat.report", description=__doc__)
    parser.add_argument("verb", nargs="?", choices=("generate", "reset"), default="generate")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    given = parser.parse_args(argv)
    directory = base_dir() / "report"
    if given.verb == "reset":
        print(f"removed {reset(directory)} files from {directory}")
        return 0
    try:
        whole = generate(directory)
    except OSError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    rows = table(all_scores(read(directory)))
    if given.json:
        print(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    print(table_markdown(rows), end="")
    print(f"\n{whole}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
