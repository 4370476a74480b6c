"""The disk quota: when the service's files outgrow it, old runs go, with their files.

Nothing is ever removed without NANOCHAT_DISK_QUOTA_GIB. What was exported to `exports/` below the base
directory goes first, for it can be made again: oldest first, but not within a day. Then failed and cancelled
runs, then succeeded ones, each oldest first, until a tenth of the quota is free. Kept: runs that are not
over, their parents, the newest success of every stage, runs with a promoted checkpoint, and runs tagged
`keep`.
Not covered: corpora, caches of downloads, and what was exported to directories elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat import paths
from server.background import Periodic
from server.checkpoints import repository as checkpoints
from server.db import Database
from server.exports.places import EXPORTS
from server.live.hub import Hub
from server.models import Alias, Checkpoint, Run
from server.problems import Conflict, NotFound
from server.runs import files, idempotency, repository, service
from server.runs.changes import announce
from server.runs.states import SUCCEEDED, TERMINAL

log = logging.getLogger(__name__)
GIB = 2**30
EVERY_S = 60.0
ROOM = 0.9
#: an export that something was written to within this time may still be needed, or still be made
FRESH_S = 24 * 3600.0
KEEP = "keep"


class Collector:
    """Looks once a minute, in a task of its own: measuring many files takes time."""

    def __init__(
        self, base_dir: Path, quota_gib: float, db: Database, hub: Hub, storage_url: str = ""
    ) -> None:
        self._base, self._quota_bytes = base_dir, int(quota_gib * GIB)
        self._storage_url = storage_url
        self._db, self._hub = db, hub
        self._looks = Periodic("disk quota", EVERY_S, self.look)

    async def start(self) -> None:
        if self._quota_bytes:
            await self._looks.start()

    async def stop(self) -> None:
        await self._looks.stop()

    async def look(self) -> list[str]:
        """Ids of the runs that were removed."""
        used = await asyncio.to_thread(bytes_below, places(self._base))
        if used <= self._quota_bytes:
            return []
        used -= await asyncio.to_thread(drop_exports, self._base, used - ROOM * self._quota_bytes)
        async with self._db.read() as session:
            candidates = [(run.id, run.stage) for run in await expendable(session)]
        removed: list[str] = []
        for run_id, stage in candidates:
            if used <= ROOM * self._quota_bytes:
                break
            used -= await asyncio.to_thread(bytes_below, files.places(self._base, run_id, stage))
            if await self._remove(run_id, stage):
                removed.append(run_id)
        left = "" if used <= self._quota_bytes else "; nothing more may go: see docs/operations.md"
        log.warning(
            "disk quota of %.1f GiB: removed %d old run(s), %.1f GiB in use now%s",
            self._quota_bytes / GIB, len(removed), used / GIB, left,
        )  # fmt: skip
        return removed

    async def _remove(self, run_id: str, stage: str) -> bool:
        try:
            async with self._db.write() as session:
                made = await checkpoints.ids_of(session, run_id)
                await service.delete(session, await repository.get(session, run_id, lock=True))
                await idempotency.forget(session, run_id)
                announce(session, self._hub, run_id)
        except (Conflict, NotFound):  # somebody needs it since, or was quicker
            return False
        await asyncio.to_thread(files.remove, self._base, run_id, stage, self._storage_url, made)
        return True


async def expendable(session: AsyncSession) -> list[Run]:
    """Runs that may go, in the order in which they should."""
    everything = (await session.scalars(select(Run).order_by(Run.created_at, Run.id))).all()
    kept: set[str | None] = set(await session.scalars(select(Checkpoint.run_id).join(Alias)))
    newest = {run.stage: run.id for run in everything if run.state == SUCCEEDED}
    kept |= {*newest.values(), *(run.parent_id for run in everything if run.state not in TERMINAL)}
    ended = [r for r in everything if r.state in TERMINAL and r.id not in kept and KEEP not in r.tags]
    return sorted(ended, key=lambda run: (run.state == SUCCEEDED, run.ended_at or run.created_at))


def drop_exports(base: Path, excess_bytes: float) -> int:
    """Remove old exports until `excess_bytes` are free, or none is left; returns how many bytes went."""
    folder, gone = base / EXPORTS, 0
    if excess_bytes <= 0 or folder.is_symlink() or not folder.is_dir():
        return 0
    aged = [(newest_change(place), place) for place in folder.iterdir() if not _stays(place)]
    for changed, place in sorted(aged):
        if gone >= excess_bytes or time.time() - changed < FRESH_S:
            break
        size = bytes_below([place]) if place.is_dir() else place.lstat().st_size
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
        gone += size
        log.warning("disk quota: removed the export %s, %.1f GiB", place.name, size / GIB)
    return gone


def _stays(place: Path) -> bool:
    """Links, and the notes of what was exported (server/exports)."""
    return place.is_symlink() or (place.name.startswith(".") and place.is_file())


def newest_change(place: Path) -> float:
    """When anything at or directly below `place` was written last, unix seconds."""
    found = [place, *(place.iterdir() if place.is_dir() else ())]
    return max((each.lstat().st_mtime for each in found), default=0.0)


def places(base: Path) -> list[Path]:
    """Where runs and exports are written."""
    return [base / "runs", base / EXPORTS, *(base / name for name in set(paths.STAGE_DIRS.values()))]


def bytes_below(folders: Sequence[Path]) -> int:
    """Size of all files below; links are not followed, what disappears meanwhile is not counted."""
    total = 0
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    total += Path(place, name).lstat().st_size
    return total
