"""`python -m server.reference [DIR]`: reference pages written from the code, so that they cannot lie.

Stages with every setting, HTTP routes, environment variables, and the command line. What `make docs` runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from nanochat.paths import repo_dir
from nanochat.stages import STAGES
from server.settings import Settings

NOTE = "<!-- written by `make docs` from the code; do not edit -->\n\n"
METHODS = ("get", "post", "put", "patch", "delete")


def stages() -> str:
    lines = ["# Stages\n"]
    for stage in STAGES.values():
        lines.append(f"## {stage.name}: {stage.title}\n")
        lines.append(f"`python -m {stage.script}`, {'torchrun' if stage.distributed else 'one process'}.")
        for item in stage.inputs:
            need = "needs" if item.required else "may take"
            lines.append(f"It {need} `{item.field}` from {' or '.join(item.stages)}.")
        lines += ["", *_table(stage.config), ""]
    return "\n".join(lines)


def environment() -> str:
    return "\n".join(["# Settings of the server\n", *_table(Settings, prefix="NANOCHAT_"), ""])


def http() -> str:
    from server.app import create_app  # half a second

    document = create_app(Settings()).openapi()
    lines = ["# HTTP\n", "`/docs` on a running service has the bodies.\n", "| route | what |", "|---|---|"]
    for path, operations in sorted(document["paths"].items()):
        for method in METHODS:
            if operation := operations.get(method):
                said = str(operation.get("description") or operation.get("summary", ""))
                lines.append(f"| `{method.upper()} {path}` | {_cell(said)} |")
    return "\n".join(lines) + "\n"


def command_line() -> str:
    from importlib.metadata import entry_points

    if not entry_points(group="console_scripts", name="nanochat"):
        return ""
    main = _help()
    verbs = [line.split()[0] for line in main.partition("Commands:")[2].splitlines() if line[2:3].strip()]
    pages = [main, *(_help(verb) for verb in verbs)]
    return "# Command line\n\n" + "\n".join(f"```\n{page.rstrip()}\n```\n" for page in pages)


def _help(*verb: str) -> str:
    """What `nanochat VERB --help` prints, in a terminal of fixed width."""
    command = [str(Path(sys.executable).with_name("nanochat")), *verb, "--help"]
    environ = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


def _table(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield "| name | default | bounds | meaning |"
    yield "|---|---|---|---|"
    for name, item in model.model_fields.items():
        shown = f"{prefix}{name}".upper() if prefix else name
        default = "" if item.default is PydanticUndefined else f"`{_value(item.default)}`"
        bounds = ", ".join(f"{sign} {bound}" for sign, bound in _bounds(item.metadata))
        yield f"| `{shown}` | {default} | {bounds} | {_cell(item.description or '')} |"


def _value(default: Any) -> str:
    return repr(getattr(default, "get_secret_value", lambda: default)())


def _bounds(metadata: list[Any]) -> Iterator[tuple[str, float]]:
    for rule in metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            bound = getattr(rule, attribute, None)
            if isinstance(bound, int | float):
                yield sign, bound


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(argv: list[str]) -> int:
    directory = Path(argv[0]) if argv else repo_dir() / "docs" / "reference"
    directory.mkdir(parents=True, exist_ok=True)
    for page in (stages, http, environment, command_line):
        text = page()
        if text:
            file = directory / f"{page.__name__.replace('_', '-')}.md"
            file.write_text(NOTE + text, encoding="utf-8")
            print(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
