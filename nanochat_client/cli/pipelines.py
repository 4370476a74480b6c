"""`nanochat pipeline`: start a chain of stages and follow it to its scores and its model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanochat_client.cli.output import Json, dump, fail, say, table

if TYPE_CHECKING:
    from nanochat_client import Client
    from nanochat_client.types import Pipeline

LEFT_ALONE = 130


def pipeline(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A shipped pipeline (demo), or JSON.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Run a chain of stages, e.g. `nanochat pipeline demo --follow`."""
    from nanochat_client import Client

    with Client() as client:
        made = _start(client, what)
        if as_json and not follow:
            dump(made)
            return
        if not as_json:
            say(f"pipeline {made.id} ({made.name}): {client.url}/ui/")
        if not follow:
            for run in made.runs:
                say(f"  {run.id}  {run.name}  {run.state}")
            say(f"follow it with: nanochat watch {made.id}")
            return
        if as_json:
            _follow_quietly(client, made)
        else:
            follow_pipeline(client, made.id)


def _start(client: Client, what: str) -> Pipeline:
    path = Path(what)
    if path.suffix != ".json" and not path.is_file():
        return client.create_pipeline(what)
    from pydantic import ValidationError

    from nanochat_client.types import PipelineCreate

    try:
        body = PipelineCreate.model_validate_json(path.read_bytes())
    except OSError as error:
        fail(f"{what} cannot be read: {error.strerror}")
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{what}: {first['msg']} at /{'/'.join(str(part) for part in first['loc'])}")
    return client.create_pipeline(
        body.preset, name=body.name, steps=body.steps, overrides=body.overrides or None
    )


def follow_pipeline(client: Client, pipeline_id: str) -> None:
    """Progress, then scores and the model's name. Exits 1 unless everything succeeded."""
    from nanochat_client.cli.progress import watch

    try:
        watch(lambda: client.pipeline(pipeline_id).runs)
    except KeyboardInterrupt:
        say(f"\nthe pipeline goes on; come back with: nanochat watch {pipeline_id}")
        raise typer.Exit(LEFT_ALONE) from None
    ended = client.pipeline(pipeline_id)
    _show_scores(client, pipeline_id)
    for run in ended.runs:
        if run.optional and run.state == "failed":
            say(f"{run.name} was left out: {run.message or run.reason}")
    if ended.model:
        say(f"model {ended.model}: nanochat chat {ended.model}")
    if ended.state != "succeeded":
        broken = next((run for run in ended.runs if run.state == "failed" and not run.optional), None)
        if broken is not None:
            fail(
                f"{broken.name} failed: {broken.message or broken.reason}; see nanochat logs {broken.id}",
                status=1,
            )
        fail(f"the pipeline ended as {ended.state}", status=1)


def _follow_quietly(client: Client, made: Pipeline) -> None:
    for run in made.runs:
        for _ in client.follow(run.id, channels=("state",)):
            pass
    ended = client.pipeline(made.id)
    dump(ended)
    if ended.state != "succeeded":
        raise typer.Exit(1)


def _show_scores(client: Client, pipeline_id: str) -> None:
    from nanochat_client.cli.results import show_report

    report = client.pipeline_report(pipeline_id)
    if not report.rows:
        return
    if sys.stdout.isatty():
        print()
    show_report(report)
    say(f"the whole report: nanochat report {pipeline_id} --markdown")


def pipelines(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: Json = False,
) -> None:
    """Pipelines, newest first."""
    from nanochat_client import Client

    with Client() as client:
        page = client.pipelines(limit=limit)
    if as_json:
        dump(page.items)
        return
    table(
        ("id", "name", "state", "model", "created"),
        [(item.id, item.name, item.state.value, item.model, item.created_at) for item in page.items],
        "no pipelines yet: nanochat pipeline demo --follow",
    )


def register(app: typer.Typer) -> None:
    for verb in (pipeline, pipelines):
        app.command()(verb)
