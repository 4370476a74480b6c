"""Bytes of an upload, from the request to the disk: never more than a mebibyte of them in memory.

`received` in the row counts what is on the disk for good: the row is written after fsync. A connection that
breaks, a server that stops, a sender that is overtaken leave what had come; of a server that was killed the
last 32 MiB at most come once more. In one process the sender that comes last goes on, and the one before it
is stopped: its connection may be dead without anybody knowing.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

from server.background import in_thread
from server.db import Database
from server.files import parts, repository
from server.files.parts import Part
from server.files.refusals import Busy, NoRoom, TooLarge, TooSlow, WrongOffset
from server.models import File
from server.problems import Conflict, NotFound

WRITE_BYTES = 1024 * 1024
SYNC_BYTES = 32 * 1024 * 1024
#: a sender may be silent for so long
SILENT_S = 30.0
#: another process of ours may need so long to let go of a part
LOCK_S = 5.0


class _Turn:
    def __init__(self) -> None:
        self.stop, self.over = asyncio.Event(), asyncio.Event()


class Receiver:
    """One per process. Raises what server/files/refusals.py has."""

    def __init__(self, base: Path, db: Database) -> None:
        self._base, self._db = base, db
        self._turns: dict[str, _Turn] = {}

    async def append(
        self, file_id: str, offset: int, announced: int | None, body: AsyncIterator[bytes]
    ) -> None:
        """Write `body`, which starts at byte `offset`; `announced`: how many bytes it has, if that is known.

        Returns when they are on the disk. More than the file is to have is refused.
        """
        await self._open(file_id)
        async with AsyncExitStack() as stack:
            stop = await stack.enter_async_context(self._turn(file_id))
            part = await stack.enter_async_context(self._part(file_id))
            file = await self._begin(file_id, part, offset)
            if announced is not None and offset + announced > file.size:
                raise _too_large(file)
            await _on_disk(part.cut, offset)
            await _Writing(self._db, file, part, offset).take(body, stop)

    async def stop(self, file_id: str) -> None:
        """End what this process receives for the upload."""
        if turn := self._turns.get(file_id):
            turn.stop.set()
            await turn.over.wait()

    @asynccontextmanager
    async def _turn(self, file_id: str) -> AsyncIterator[asyncio.Event]:
        """Whoever came before is told to stop, and has."""
        mine, before = _Turn(), self._turns.get(file_id)
        self._turns[file_id] = mine
        try:
            if before is not None:
                before.stop.set()
                await before.over.wait()
            yield mine.stop
        finally:
            mine.over.set()
            if self._turns.get(file_id) is mine:
                del self._turns[file_id]

    @asynccontextmanager
    async def _part(self, file_id: str) -> AsyncIterator[Part]:
        """The part with its lock; other processes are waited for a little."""
        give_up_at = asyncio.get_running_loop().time() + LOCK_S
        while True:
            with parts.hold(self._base, file_id) as part:
                if part is not None:
                    yield part
                    return
            if asyncio.get_running_loop().time() > give_up_at:
                raise Busy("another server is at this upload: ask for its offset and go on", "busy")
            await asyncio.sleep(0.1)

    async def _begin(self, file_id: str, part: Part, offset: int) -> File:
        """The row, as it is under the lock. Raises WrongOffset."""
        file = await self._open(file_id)
        here = min(file.received, part.size())
        if here < file.received:  # somebody has removed it: what is not here has to come again
            async with self._db.write() as session:
                await repository.advance(session, file, file.received, here)
        if offset != here:
            raise WrongOffset(here)
        return file

    def end(self) -> None:
        """Tell every sender to stop."""
        for turn in self._turns.values():
            turn.stop.set()

    async def _open(self, file_id: str) -> File:
        """The row. Raises NotFound, and Conflict for what takes no more bytes."""
        async with self._db.read() as session:
            file = await repository.get(session, file_id)
        if file.state != repository.UPLOADING:
            raise Conflict(f"file {file.id} is {file.state}: it takes no more bytes", code="invalid_state")
        return file


class _Writing:
    """What one request sends, on its way to the disk."""

    def __init__(self, db: Database, file: File, part: Part, offset: int) -> None:
        self._db, self._file, self._part = db, file, part
        self._kept = self._at = offset
        """Bytes that the row knows, and bytes that have come."""
        self._buffer: list[bytes] = []
        self._buffered = 0

    async def take(self, body: AsyncIterator[bytes], stop: asyncio.Event) -> None:
        """Everything, or until `stop`. However it ends, what came is kept, unless it is too much."""
        try:
            async with aclosing(_until(stop, body)) as arriving:
                async for data in arriving:
                    await self._add(data)
        except (TooLarge, NoRoom):
            raise
        except BaseException:
            with suppress(NotFound, NoRoom):
                await self._keep()
            raise
        await self._keep()

    async def _add(self, data: bytes) -> None:
        self._at += len(data)
        if self._at > self._file.size:
            raise _too_large(self._file)
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= WRITE_BYTES:
            await self._flush()
        if self._at - self._kept >= SYNC_BYTES:
            await self._keep()

    async def _flush(self) -> None:
        data, self._buffer, self._buffered = b"".join(self._buffer), [], 0
        await _on_disk(self._part.write, data)

    async def _keep(self) -> None:
        """On the disk for good, and then in the row."""
        if self._at == self._kept:
            return
        await self._flush()
        await _on_disk(self._part.sync)
        async with self._db.write() as session:
            if not await repository.advance(session, self._file, self._kept, self._at):
                raise NotFound(f"file {self._file.id} was deleted, or somebody else has sent these bytes")
        self._kept = self._at


async def _on_disk(call: Callable[..., object], *arguments: object) -> None:
    """To its end also when this task is cancelled: what is written must be known.

    Raises NoRoom when the disk takes no more.
    """
    try:
        await in_thread(call, *arguments)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise NoRoom(f"the disk takes no more: {error.strerror}", code="disk_full") from None


async def _until(stop: asyncio.Event, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What comes. Raises Busy when `stop` is set, TooSlow when nothing comes for SILENT_S."""
    stopped = asyncio.create_task(stop.wait())
    reading: asyncio.Future[bytes] | None = None
    try:
        while True:
            reading = asyncio.ensure_future(anext(body))
            await asyncio.wait({reading, stopped}, timeout=SILENT_S, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                raise Busy("somebody else goes on with this upload", "overtaken")
            if not reading.done():
                raise TooSlow(f"nothing came for {SILENT_S:g} s: ask for the offset and go on")
            try:
                data = reading.result()
            except StopAsyncIteration:
                return
            yield data
    finally:
        for task in (reading, stopped):
            if task is not None and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


def _too_large(file: File) -> TooLarge:
    return TooLarge(f"the file was announced with {file.size} bytes, and this is more")
