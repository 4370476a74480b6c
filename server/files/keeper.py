"""What becomes of an upload once it is whole, and of one that never is.

A whole one is checked in a process of its own and then lies at its place, or is rejected. Once a minute: the
checks that a server left unfinished are made, uploads that nothing came for in a day and the reasons of
rejections go, parts that nobody knows too. Every step can be repeated, and by several servers. Not covered:
files that somebody else puts below `files/`, or takes away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from nanochat import files
from nanochat.storage import Storage, StorageError
from server.background import Periodic, end
from server.db import Database
from server.files import check, parts, repository, service
from server.files.parts import Part
from server.files.receive import Receiver
from server.files.refusals import Forbidden
from server.files.views import KEEP
from server.models import File, now
from server.problems import NotFound
from server.settings import Settings

log = logging.getLogger(__name__)
EVERY_S = 60.0
STOP_S = 5.0
AT_ONCE = 2


class Keeper:
    """One per process; `receiver` takes the bytes. `clock`: now, for tests of what a day does."""

    def __init__(self, settings: Settings, db: Database, clock: Callable[[], datetime] = now) -> None:
        self._settings, self._base, self._db, self._clock = settings, settings.base_dir, db, clock
        self.receiver = Receiver(settings.base_dir, db)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._receiving: set[asyncio.Task[Any]] = set()
        self._looks = Periodic("files", EVERY_S, self.look)

    async def start(self) -> None:
        await self._looks.start()

    async def stop(self) -> None:
        """What has come until now is on the disk, and in the database, when this returns."""
        await self._looks.stop()
        self.receiver.end()
        if self._receiving:
            await asyncio.wait(self._receiving, timeout=STOP_S)
        await end(*self._checks.values())

    async def look(self) -> None:
        """Everything that is to be done, once."""
        async with self._db.read() as session:
            unchecked = await repository.ids_in(session, repository.CHECKING)
        for file_id in unchecked:
            self._begin(file_id)
        await self._forget()
        await self._sweep()

    async def append(
        self, file_id: str, offset: int, announced: int | None, body: AsyncIterator[bytes], wait_s: float
    ) -> File:
        """Take bytes as the receiver does; after the last one wait for the check, `wait_s` at most."""
        if task := asyncio.current_task():
            self._receiving.add(task)
            task.add_done_callback(self._receiving.discard)
        try:
            await self.receiver.append(file_id, offset, announced, body)
        except Exception:
            if (await self._row(file_id)).state == repository.CHECKING:  # all came, nobody hears the answer
                self._begin(file_id)
            raise
        file = await self._row(file_id)
        if file.state != repository.CHECKING:
            return file
        await asyncio.wait([self._begin(file_id)], timeout=wait_s)
        return await self._row(file_id)

    async def delete(self, file_id: str, *, ready: bool) -> None:
        """Remove a file, also while it comes. `ready`: also one that runs may use.

        Raises NotFound, Forbidden, and Conflict while a run needs it.
        """
        await self.receiver.stop(file_id)
        async with self._db.write() as session:
            file = await repository.get(session, file_id, lock=True)
            if file.state == repository.READY and not ready:
                raise Forbidden("this needs a key with the scope operate: runs may use the file")
            await service.delete(session, file, self._settings)
            if file.state == repository.READY:
                # before the commit: afterwards the name may be another file's
                parts.put_away(self._base, file.id, files.place(self._base, file.kind, file.name))
        await asyncio.to_thread(parts.drop, self._base, file.id)
        if file.state == repository.READY:
            await asyncio.to_thread(self._unshare, file)

    async def _row(self, file_id: str) -> File:
        async with self._db.read() as session:
            return await repository.get(session, file_id)

    # ------------------------------------------------------------ checks

    def _begin(self, file_id: str) -> asyncio.Task[None]:
        task = self._checks.get(file_id)
        if task is None:
            task = self._checks[file_id] = asyncio.create_task(self._check(file_id), name=f"check-{file_id}")
            task.add_done_callback(lambda _: self._checks.pop(file_id, None))
        return task

    async def _check(self, file_id: str) -> None:
        try:
            async with self._room:
                with parts.hold(self._base, file_id) as part:
                    if part is not None:  # else another server is at it
                        await self._check_part(file_id, part)
        except NotFound:
            await asyncio.to_thread(parts.drop, self._base, file_id)
        except Exception:  # the next look tries again
            log.exception("file %s: its check broke", file_id)

    async def _check_part(self, file_id: str, part: Part) -> None:
        file = await self._row(file_id)
        if file.state != repository.CHECKING:
            return
        final = files.place(self._base, file.kind, file.name)
        # the server may have died after the file had come to its place, and before the row knew
        placed = part.size() == 0 and final.is_file()
        report = await check.read(file.kind, file.name, final if placed else part.path)
        message = report.message
        if report.sha256 and report.sha256 != file.sha256:
            message = f"{file.name}: what came is not what was announced (other sha256): send it once more"
        if message is None:
            await asyncio.to_thread(self._share, file, final if placed else part.path)
        async with self._db.write() as session:
            # the name is this file's as long as its row is: the row first, its lock, then the place
            if not await repository.settle(session, file_id, items=report.items, message=message):
                raise NotFound(f"file {file_id} was deleted while it was checked")
            if message is None and not placed:
                part.become(final)
        if message is not None or placed:
            await asyncio.to_thread(parts.drop, self._base, file_id)
        log.info("file %s (%s): %s", file_id, file.name, message or "ready")

    # ------------------------------------------------------------ what goes

    async def _forget(self) -> None:
        before = self._clock() - KEEP
        async with self._db.read() as session:
            if not await repository.untouched(session, before):
                return
        async with self._db.write() as session:
            gone = await repository.untouched(session, before, lock=True)
            for file in gone:
                await service.delete(session, file, self._settings)
        for file in gone:
            log.info("file %s (%s): forgotten, it was %s for a day", file.id, file.name, file.state)
            await asyncio.to_thread(parts.drop, self._base, file.id)

    async def _sweep(self) -> None:
        async with self._db.read() as session:
            known = await repository.all_ids(session)
        older_than = time.time() - KEEP.total_seconds()
        for path in await asyncio.to_thread(parts.lost, self._base, known, older_than):
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------ hosts that share nothing but a storage

    def _share(self, file: File, content: Path) -> None:
        """Where other hosts find it. Raises StorageError."""
        if self._settings.storage_url:
            storage = Storage(self._settings.storage_url, self._base)
            storage.push_file(files.relative(file.kind, file.name), content, file.sha256)

    def _unshare(self, file: File) -> None:
        if self._settings.storage_url:
            try:
                storage = Storage(self._settings.storage_url, self._base)
                storage.remove(files.relative(file.kind, file.name))
            except (StorageError, OSError) as error:
                log.warning("%s stays in the storage: %s", file.name, error)
