"""Verbs about files of one's own that are on the service: upload, list, delete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanochat_client.cli.output import Json, clean, dump, fail, say, size, table

if TYPE_CHECKING:
    from nanochat_client.types import File

files = typer.Typer(help="Conversations, texts and presets of yours on the service.", no_args_is_help=True)
KINDS = ("conversations", "text", "preset")


@files.command()
def upload(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…")],
    kind: Annotated[
        str | None, typer.Option(help="conversations, text or preset; default: what the file looks like.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the file's own, in small letters.")] = None,
    as_json: Json = False,
) -> None:
    """Bring files to the service, where they are checked; goes on where an earlier call stopped."""
    if kind is not None and kind not in KINDS:
        fail(f"there is no kind {kind!r}; there are {', '.join(KINDS)}")
    if name is not None and len(paths) > 1:
        fail("--name goes with one file")
    for path in paths:
        if not path.is_file():
            fail(f"there is no file {path}")
    from nanochat_client import Client

    made = []
    with Client() as client:
        for path in paths:
            made.append(client.files.upload(path, kind=kind, name=name, progress=_progress(path)))
            if not as_json:
                say(_uploaded(made[-1]))
    if as_json:
        dump(made)


def _progress(path: Path) -> _Line | None:
    return _Line(path.name) if sys.stderr.isatty() else None


class _Line:
    """One changing line on the terminal."""

    def __init__(self, name: str) -> None:
        self._name = clean(name)

    def __call__(self, here: int, whole: int) -> None:
        end = "\n" if here == whole else ""
        text = f"\r{self._name}  {size(here)} of {size(whole)}, {here / whole:.0%}\x1b[K"
        print(text, end=end, file=sys.stderr, flush=True)


def _uploaded(file: File) -> str:
    """What it holds, and how a run is told of it."""
    if file.kind == "preset":
        return f"{file.path}: nanochat run STAGE --config {Path(file.name).stem}"
    field = "tasks" if file.kind == "conversations" else "data"
    what = "conversations" if file.kind == "conversations" else "documents"
    return f"{file.path}  {file.items:,} {what}: nanochat run STAGE --set {field}={file.path}"


@files.command("list")
def list_(
    kind: Annotated[str | None, typer.Option(help="conversations, text or preset.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    as_json: Json = False,
) -> None:
    """Files and unfinished uploads, newest first."""
    from nanochat_client import Client

    with Client() as client:
        page = client.files(kind=kind, limit=limit)
    if as_json:
        dump(page.items)
        return
    rows = [
        (file.id, file.path, size(file.size), file.items, _state(file), file.created_at)
        for file in page.items
    ]
    columns = ("id", "path", "size", "items", "state", "created")
    table(columns, rows, "no files yet: nanochat files upload FILE")


def _state(file: File) -> str:
    if file.state == "uploading":
        return f"uploading {file.offset / file.size:.0%}"
    return f"{file.state}: {file.message}" if file.message else str(file.state)


@files.command()
def delete(file_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Remove a file or an upload; one that a run reads stays until the run is over."""
    from nanochat_client import Client

    with Client() as client:
        client.files.delete(file_id)


def register(app: typer.Typer) -> None:
    app.add_typer(files, name="files")
