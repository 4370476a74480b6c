"""Verbs that become another program: up, server, worker, export, import, data, db. Signals reach it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from nanochat_client.cli.output import fail


def become(module: str, *arguments: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def up(port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8000.")] = None) -> None:
    """Start everything on this machine (queue, server, worker); Ctrl-C stops all of it."""
    _server("server.up", port)


def server(port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8000.")] = None) -> None:
    """Start the API server alone."""
    _server("server", port)


def worker() -> None:
    """Start this host's worker alone; NANOCHAT_URL says where the server is."""
    become("worker")


def export(
    checkpoint: Annotated[str, typer.Argument(help="A path, or an id from `nanochat checkpoints`.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="A new directory.")],
    form: Annotated[str, typer.Option("--format", help="hf: for transformers.")] = "hf",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Write a model for other software; its files must be on this machine."""
    path = checkpoint if _is_here(checkpoint) else _path_of(checkpoint)
    become("nanochat.export", path, "--format", form, "--out", out, "--dtype", dtype)


def import_(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Its base directory, or a tag in it.")],
) -> None:
    """Take over checkpoints of karpathy/nanochat of late 2025, the newest step of each."""
    become("nanochat.imports", directory)


def data(
    verb: Annotated[str, typer.Argument(metavar="list|get", help="list: what is here. get: fetch one.")],
    name: Annotated[str | None, typer.Argument(help="A name from `nanochat data list`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="list: as JSON.")] = False,
) -> None:
    """The data sets that models are scored by, below the base directory."""
    become("nanochat.data", verb, *([name] if name else []), *(["--json"] if as_json else []))


def db(
    verb: Annotated[str, typer.Argument(metavar="backup|restore|move")],
    where: Annotated[str, typer.Argument(metavar="FILE|URL", help="move: the URL of an empty database.")],
) -> None:
    """The service's database as one file, back again, or into another database; artefacts are apart."""
    become("server.backup", verb, where)


def _is_here(path: str) -> bool:
    from nanochat.paths import base_dir, find_artefact

    try:
        return bool(find_artefact(path, base_dir()))
    except FileNotFoundError:
        return False


def _path_of(checkpoint: str) -> str:
    """Where the service has the checkpoint of that id, below the base directory."""
    from nanochat_client import Client, ConnectionFailed

    cursor: str | None = None
    with Client() as client:
        while True:
            try:
                page = client.checkpoints(cursor=cursor, limit=200)
            except ConnectionFailed as error:
                fail(f"{checkpoint!r} is no path here, and to look for an id: {error.detail}", status=1)
            for item in page.items:
                if item.id == checkpoint:
                    return item.path
            cursor = page.next_cursor
            if cursor is None:
                fail(f"{checkpoint!r} is no path here and no id of the service; see nanochat checkpoints")


def _server(module: str, port: int | None) -> NoReturn:
    if port is not None:
        os.environ["NANOCHAT_PORT"] = str(port)
    become(module)


def register(app: typer.Typer) -> None:
    for verb in (up, server, worker, export, data, db):
        app.command()(verb)
    app.command("import")(import_)
