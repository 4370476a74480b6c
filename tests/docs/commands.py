"""The commands that a page of the documentation tells its reader to type, and what is wrong with them.

Looked at: blocks of code, and code in the running text that begins with a command of ours. Commands are
taken apart by the shell's rules and held against what knows: verbs and options against the Typer app,
targets of make against the Makefile, flags of stages and presets against the stage table. Flags of other
modules must stand in the module's source. Not covered: values (but for stages, presets, pipelines and
fields), programs that are not ours, whether a command does what the text says.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import typer

from nanochat.configurator import preset_names
from nanochat.paths import repo_dir
from nanochat.stages import STAGES
from nanochat.stages.spec import Stage
from nanochat_client.cli import app

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^\n|\A)((?:^ {4,}[^\n]*\n|^\n)+)", re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
SEPARATORS = {"&&", "||", ";", "|", "&"}
OURS = ("nanochat", "make", "python", "python3", "torchrun")
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
PLACEHOLDER = re.compile(r"[A-Z|…]+")


def commands_of(page: str) -> Iterator[list[str]]:
    """Every command of ours in a Markdown page, as words."""
    blocks = FENCE.findall(page)
    page = FENCE.sub("", page)
    blocks += INDENTED.findall(page)
    spans = [" ".join(span.split()) for span in SPAN.findall(INDENTED.sub("\n", page))]
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *(span for span in spans if span.startswith(tuple(f"{name} " for name in OURS)))]:
        yield from _commands(line)


def _commands(line: str) -> Iterator[list[str]]:
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:  # a block that is no shell, with one quotation mark
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in SEPARATORS:
            command.append(word)
            continue
        if (found := _ours(command)) is not None:
            yield found
        command = []


def _ours(command: list[str]) -> list[str] | None:
    while command and (
        ASSIGNMENT.fullmatch(command[0]) or command[0] in ("sudo", "env", "exec", "as_server")
    ):
        command = command[3:] if command[:2] == ["env", "-u"] else command[1:]
    if not command or (name := command[0].removeprefix(".venv/bin/")) not in OURS:
        return None
    return [name, *command[1:]]


def problem(command: list[str]) -> str | None:
    """What is wrong with a command of `commands_of`, in a sentence, or None."""
    name, *words = command
    match name:
        case "make":
            return _make(words)
        case "nanochat":
            return _nanochat(words)
        case "torchrun":
            while words and words[0].startswith("--"):
                words = words[1:]
    return _python(words)


@cache
def _makefile() -> str:
    return (repo_dir() / "Makefile").read_text(encoding="utf-8")


def _make(words: list[str]) -> str | None:
    for word in words:
        name, is_variable, _ = word.partition("=")
        there = rf"\$[({{]{name}[)}}]" if is_variable else rf"^{re.escape(name)}:"
        if not re.search(there, _makefile(), re.MULTILINE):
            return f"the Makefile has no {name}"
    return None


@cache
def _command_line() -> click.Command:
    return typer.main.get_command(app)


def _nanochat(words: list[str]) -> str | None:
    here, rest = _command_line(), list(words)
    while hasattr(here, "commands") and rest and not rest[0].startswith("-"):
        verbs = rest.pop(0).split("|")
        if wrong := [verb for verb in verbs if verb not in here.commands]:
            return f"there is no verb {wrong[0]}"
        here = here.commands[verbs[0]]
    if here.name == "run" and rest[0] not in STAGES and not PLACEHOLDER.fullmatch(rest[0]):
        return f"there is no stage {rest[0]}"
    if here.name == "pipeline" and not (rest[0] in _pipelines() or "/" in rest[0] or rest[0].isupper()):
        return f"there is no pipeline {rest[0]}"
    return _options(here, rest)


def _options(verb: click.Command, words: list[str]) -> str | None:
    known = {name for option in verb.get_params(click.Context(verb)) for name in option.opts}
    stage = next((STAGES[word] for word in words if word in STAGES), None)
    for word, after in pairwise([*words, ""]):
        option, has_value, value = word.partition("=")
        if not re.match(r"--?[a-z]", word):
            continue
        if option not in known:
            return f"{verb.name} has no option {option}"
        if wrong := _value(option, value if has_value else after, stage):
            return wrong
    return None


def _value(option: str, value: str, stage: Stage | None) -> str | None:
    key = value.partition("=")[0]
    if option == "--set" and stage and key not in (*stage.config.model_fields, "…"):
        return f"{stage.name} has no field {key}"
    if option == "--config":
        return _preset(value)
    return None


def _preset(name: str) -> str | None:
    if name in (*preset_names(), "tiny") or PLACEHOLDER.fullmatch(name):  # tiny is written in stages.md
        return None
    return None if (repo_dir() / name).is_file() else f"there is no preset {name}"


@cache
def _pipelines() -> set[str]:
    return {file.stem for file in (repo_dir() / "configs" / "pipelines").glob("*.json")}


def _python(words: list[str]) -> str | None:
    if not words or words[0] == "-c":
        return None
    module, flags = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
    if module.partition(".")[0] in sys.stdlib_module_names:
        return None
    place = repo_dir() / (module.replace(".", "/") if words[0] == "-m" else module.removesuffix(".py"))
    if place.is_relative_to(repo_dir()) and place.name in ("mine", "wordcount"):
        return None  # written in stages.md and run by its test
    sources = [file for file in (place.with_suffix(".py"), place / "__main__.py") if file.is_file()]
    if not sources:
        return f"there is no {module}"
    stage = next((s for s in STAGES.values() if s.script == f"scripts.{place.name}"), None)
    return _stage_flags(stage, flags) if stage else _module_flags(sources[0], flags)


def _stage_flags(stage: Stage, words: list[str]) -> str | None:
    for word, after in pairwise([*words, ""]):
        word = word.lstrip("[")
        option, has_value, value = word.partition("=")
        if not re.match(r"--?[a-z]", word):
            continue
        key = stage.aliases.get(option, option.lstrip("-").replace("-", "_"))
        if key == "config" and (wrong := _preset(value if has_value else after)):
            return wrong
        if key not in (*stage.config.model_fields, "config", "help"):
            return f"{stage.script} has no flag {option}"
    first = words[0] if words else "-"
    return None if first.startswith(("-", "[")) else _preset(first)


def _module_flags(source: Path, words: list[str]) -> str | None:
    text = "".join(file.read_text(encoding="utf-8") for file in _sources_of(source))
    for word in words:
        option = word.lstrip("[").partition("=")[0]
        if re.match(r"--?[a-z]", option) and option != "--help" and f'"{option}"' not in text:
            return f"{source.name} has no flag {option}"
    return None


def _sources_of(source: Path) -> list[Path]:
    """The file, and the module of `nanochat` that a door in `scripts/` opens."""
    behind = repo_dir() / "nanochat" / source.name
    if source.name == "__main__.py":
        return sorted(source.parent.glob("*.py"))
    return [source, behind] if source.parent.name == "scripts" and behind.is_file() else [source]
