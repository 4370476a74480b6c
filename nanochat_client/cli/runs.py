"""`nanochat run STAGE` and `nanochat watch ID`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanochat_client.cli.output import Json, clean, dump, fail, say

if TYPE_CHECKING:
    from nanochat_client import Client
    from nanochat_client.types import Run, RunState

LEFT_ALONE = 130


def run(
    stage: Annotated[str, typer.Argument(help="tokenizer, base, mid, sft, rl, an evaluation …")],
    config: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="A preset.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of the config; may be repeated."),
    ] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Start from this run's model.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Of the parent: last, best:<metric>, step:<n>.")] = "last",
    gpus: Annotated[int | None, typer.Option(min=0, max=64)] = None,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Workers to spread over, all or none.")] = 1,
    min_nodes: Annotated[
        int | None, typer.Option(min=1, help="Go on with so few, when others are lost.")
    ] = None,
    name: Annotated[str | None, typer.Option()] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher ones start first.")] = 0,
    max_restarts: Annotated[int, typer.Option(min=0, max=100, help="After lost workers and crashes.")] = 3,
    max_duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Save and end after so much training.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Start a run; `--set key=value` wins over the preset."""
    from pydantic import ValidationError

    from nanochat_client import Client

    preset, overrides, implied_gpus = _preset(config)
    overrides |= assignments(stage, sets or [])
    with Client() as client:
        try:
            made = client.create_run(
                stage,
                config=preset,
                overrides=overrides,
                name=name,
                parent=parent,
                checkpoint=checkpoint,
                gpus=gpus if gpus is not None else implied_gpus,
                nodes=nodes,
                min_nodes=min_nodes,
                priority=priority,
                max_restarts=max_restarts,
                max_duration_s=max_duration,
            )
        except ValidationError as error:
            first = error.errors()[0]
            fail(f"--{first['loc'][0]}: {first['msg']}")
        if as_json and not follow:
            dump(made)
        elif not as_json:
            say(f"run {made.id} ({made.name}): {client.url}/ui/runs/{made.id}")
        if made.blocked and not as_json:
            say(f"it waits: {made.blocked.message}")
        if follow:
            follow_log(client, made, quiet=as_json)


def _preset(config: str | None) -> tuple[str | None, dict[str, Any], int | None]:
    """Name of a shipped preset, or what a file sets: (name, overrides, GPUs it implies)."""
    if config is None:
        return None, {}, None
    path = Path(config)
    if not path.is_file():
        if path.suffix in (".py", ".json") or os.sep in config:
            fail(f"--config: there is no file {config}")
        return config, {}, None
    from nanochat.configurator import PresetError, load_preset

    try:
        preset = load_preset(path)
    except PresetError as error:
        fail(f"--config: {error}")
    return None, dict(preset.values), preset.gpus


def assignments(stage: str, texts: list[str]) -> dict[str, Any]:
    """`key=value` texts as the stage's config wants them; what is unknown the service refuses."""
    if not texts:
        return {}
    from nanochat.configurator import from_text
    from nanochat.stages import STAGES

    fields = STAGES[stage].config.model_fields if stage in STAGES else {}
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not key:
            fail(f"--set wants key=value, got {text!r}")
        found[key] = from_text(value, fields[key].annotation if key in fields else Any)
    return found


def follow_log(client: Client, run: Run, *, quiet: bool = False, after: int = 0) -> None:
    """Print the log as it comes; exits 1 unless the run succeeds. Ctrl-C leaves the run alone."""
    ended: RunState | None = None
    try:
        ended = print_log(client, run.id, after=after, quiet=quiet)
    except KeyboardInterrupt:
        print(f"\nthe run goes on; stop it with: nanochat stop {run.id}", file=sys.stderr)
        raise typer.Exit(LEFT_ALONE) from None
    final = client.run(run.id)
    if quiet:
        dump(final)
    if ended != "succeeded":
        message = f"run {run.id} ended as {final.state}"
        fail(f"{message}: {final.message or final.reason}" if final.reason else message, status=1)


def print_log(client: Client, run_id: str, *, after: int = 0, quiet: bool = False) -> RunState | None:
    """Print the log from byte `after` until the run ends; answers how it ended."""
    from nanochat_client.stream import End, Log, State

    blocked = ""
    for item in client.follow(run_id, channels=("log", "state"), after={"log": after}):
        match item:
            case Log(text=text) if not quiet:
                sys.stdout.write(clean(text))
                sys.stdout.flush()
            case State(run=run) if not quiet:
                why = run.blocked.message if run.blocked else ""
                if why and why != blocked:
                    print(f"waits: {clean(why)}", file=sys.stderr)
                blocked = why
            case End(state=state):
                return state
            case _:
                pass
    return None


def watch(what: Annotated[str, typer.Argument(metavar="ID", help="A run or a pipeline.")]) -> None:
    """Watch a run or a pipeline until it ends; a run on a terminal with loss, devices and log.

    Ctrl-C leaves it alone (exit status 130).
    """
    from nanochat_client import Client, NotFound
    from nanochat_client.cli.pipelines import follow_pipeline

    with Client() as client:
        try:
            client.run(what)
        except NotFound:
            try:
                client.pipeline(what)
            except NotFound:
                fail(f"there is no run and no pipeline {what!r}; see nanochat runs")
            follow_pipeline(client, what)
            return
        try:
            ended = _watch_run(client, what)
        except KeyboardInterrupt:
            raise typer.Exit(LEFT_ALONE) from None
        if ended.state != "succeeded":
            fail(f"run {what} ended as {ended.state}: {ended.message or ended.reason or ''}", status=1)


def _watch_run(client: Client, run_id: str) -> Run:
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from nanochat_client.cli.live import watch_live

        return watch_live(client, run_id)
    from nanochat_client.cli.progress import watch as follow

    return follow(lambda: [client.run(run_id)])[0]


def register(app: typer.Typer) -> None:
    for verb in (run, watch):
        app.command()(verb)
