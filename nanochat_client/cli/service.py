"""Verbs that are the service: up, server, worker. The process becomes the part, so signals reach it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer


def _become(module: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module])


def up(port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8000.")] = None) -> None:
    """Start everything on this machine (queue, server, worker); Ctrl-C stops all of it."""
    _server("server.up", port)


def server(port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8000.")] = None) -> None:
    """Start the API server alone."""
    _server("server", port)


def worker() -> None:
    """Start this host's worker alone; NANOCHAT_URL says where the server is."""
    _become("worker")


def _server(module: str, port: int | None) -> NoReturn:
    if port is not None:
        os.environ["NANOCHAT_PORT"] = str(port)
    _become(module)


def register(app: typer.Typer) -> None:
    for verb in (up, server, worker):
        app.command()(verb)
