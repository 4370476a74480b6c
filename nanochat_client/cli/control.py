"""Verbs that change a run: stop, pause, resume, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nanochat_client.cli.output import Json, dump, say

if TYPE_CHECKING:
    from nanochat_client.types import Run

Id = Annotated[str, typer.Argument(metavar="ID")]


def stop(run_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """End a run (or a pipeline); a running one saves a checkpoint first."""
    from nanochat_client import Client, NotFound

    with Client() as client:
        try:
            _show(client.cancel_run(run_id), as_json)
        except NotFound as no_run:
            try:
                pipeline = client.cancel_pipeline(run_id)
            except NotFound:
                raise no_run from None
            if as_json:
                dump(pipeline)
            else:
                say(f"pipeline {pipeline.id}: {pipeline.state}")


def pause(run_id: Id, as_json: Json = False) -> None:
    """Save a checkpoint and wait until the run is resumed."""
    from nanochat_client import Client

    with Client() as client:
        _show(client.pause_run(run_id), as_json)


def resume(run_id: Id, as_json: Json = False) -> None:
    """Go on with a paused run, from its last checkpoint."""
    from nanochat_client import Client

    with Client() as client:
        _show(client.resume_run(run_id), as_json)


def retry(
    run_id: Id,
    checkpoint: Annotated[
        str, typer.Option(help="Go on from: last, best:<metric>, step:<n>, an id; none: from the beginning.")
    ] = "last",
    as_json: Json = False,
) -> None:
    """Start an ended run once more, as a new run."""
    from nanochat_client import Client

    with Client() as client:
        _show(client.retry_run(run_id, checkpoint=checkpoint), as_json)


def _show(run: Run, as_json: bool) -> None:
    if as_json:
        dump(run)
        return
    wanted = {"pause": "will pause", "cancel": "will stop"}.get(run.desired.value, "")
    ended = run.state in ("succeeded", "failed", "cancelled", "paused")
    say(f"run {run.id} ({run.name}): {run.state}{f', {wanted}' if wanted and not ended else ''}")


def register(app: typer.Typer) -> None:
    for verb in (stop, pause, resume, retry):
        app.command()(verb)
