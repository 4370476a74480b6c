"""The command line has what the public contract promises: verbs, their options, `--json` where they read."""

from __future__ import annotations

import click
import pytest
import typer

from nanochat_client.cli import app

#: the contract: each verb (or group and verb) with its arguments and the options it names
PROMISED = {
    "up": "", "server": "", "worker": "",
    "run": "STAGE --config --set --parent --follow",
    "pipeline": "FILE|NAME --follow",
    "plan": "STAGE --config --target-vram-gb --gpu --gpus",
    "runs": "", "show": "ID", "logs": "ID -f", "metrics": "ID", "stop": "ID", "pause": "ID", "resume": "ID",
    "retry": "ID",
    "checkpoints": "", "models": "", "export": "CHECKPOINT --format --out", "chat": "[MODEL]",
    "files upload": "FILE --kind --name", "files list": "", "files delete": "ID",
    "keys create": "", "keys list": "", "keys revoke": "ID",
    "gpus": "", "doctor": "", "watch": "ID", "import": "DIR",
    "data": "list|get", "db": "backup|restore|move",
}  # fmt: skip
READS = [
    "runs", "show", "logs", "metrics", "checkpoints", "models", "gpus", "doctor", "plan", "report",
    "evaluations", "lineage", "keys list", "files list", "data",
]  # fmt: skip


def verb_of(name: str) -> click.Command:
    here = typer.main.get_command(app)
    for word in name.split():
        here = here.commands[word]  # type: ignore[attr-defined]
    return here


@pytest.mark.parametrize(("name", "promised"), PROMISED.items())
def test_a_promised_verb_is_there_with_its_arguments(name: str, promised: str) -> None:
    verb = verb_of(name)
    params = verb.get_params(click.Context(verb))
    options = {option for param in params if param.param_type_name == "option" for option in param.opts}
    arguments = [param for param in params if param.param_type_name == "argument"]
    words = promised.split()
    assert {word for word in words if word.startswith("-")} <= options
    wanted = [word for word in words if not word.startswith("-")]
    assert len(arguments) >= len(wanted)
    assert [argument.required for argument in arguments[: len(wanted)]] == [
        "[" not in word for word in wanted
    ]
    if "|" in promised and wanted[0].islower():
        assert promised in (arguments[0].metavar or "")


@pytest.mark.parametrize("name", READS)
def test_a_verb_that_reads_can_answer_in_json(name: str) -> None:
    verb = verb_of(name)
    assert any("--json" in param.opts for param in verb.get_params(click.Context(verb)))


def test_every_verb_says_in_one_line_what_it_does() -> None:
    top = typer.main.get_command(app)
    silent = [name for name, verb in top.commands.items() if not verb.get_short_help_str()]  # type: ignore[attr-defined]
    assert silent == []
