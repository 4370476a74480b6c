"""Which runs need an uploaded file, and which files that a config names are not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat import files
from nanochat.configurator import nearest_name
from nanochat_client.types import ProblemItem
from server.files import repository
from server.models import File, Run
from server.runs.states import TERMINAL


async def missing(session: AsyncSession, config: Mapping[str, Any], base: Path, at: str) -> list[ProblemItem]:
    """Problems of files that a config names; `at`: where its fields stand in the body.

    A file that is there stays until the transaction ends. Not covered: what somebody else put below
    `files/` is believed when it exists here.
    """
    problems = []
    for path, field in files.named(config, base).items():
        _, *rest = path.split("/")
        if len(rest) != 2:  # a directory: its files are looked at when they are read
            continue
        kind, name = rest
        row = await repository.of_name(session, kind, name, share=True)
        if (row and row.state == repository.READY) or (row is None and (base / path).exists()):
            continue
        nearest = None
        if row is None:
            known = [files.relative(one.kind, one.name) for one in await repository.ready(session)]
            nearest = nearest_name(path, known)
            message = f"there is no file {path!r}" + (f"; the nearest is {nearest!r}" if nearest else "")
        else:
            message = f"{path} is not ready: it is {row.state}" + (f" ({row.message})" if row.message else "")
        problems.append(ProblemItem(pointer=f"{at}/{field}", message=message, nearest=nearest))
    return problems


async def runs_with(session: AsyncSession, base: Path, file: File) -> list[Run]:
    """Runs that are not over and were told to read the file."""
    path = files.relative(file.kind, file.name)
    unfinished = await session.scalars(select(Run).where(Run.state.not_in(TERMINAL)).order_by(Run.created_at))
    return [run for run in unfinished if files.needs(run.config, base, path)]
