"""Makes exports in the background, each by a `python -m nanochat.export` of its own.

The files are the truth: a directory that is there is whole, and its note says why one is not. The note is
written before the work begins, so it is right should this process die; it is locked by this process and by
the exporter, so another server in the same base directory sees that one is being made.
Not covered: servers with base directories of their own have exports of their own; an export that is made
while its run is deleted may stay (the disk quota takes it).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

from nanochat_client.types import Export
from server.background import end
from server.checkpoints import files
from server.exports.places import Place, known_places, places_of
from server.problems import ServiceError
from server.settings import Settings

log = logging.getLogger(__name__)
EXPORT = (sys.executable, "-m", "nanochat.export")
#: a model is in memory twice while it is written
AT_ONCE = 2
MOST = 32
LONGEST_S = 3600.0
TAIL_BYTES = 4096
LONGEST_MESSAGE = 500
TRIES = 5
INTERRUPTED = "interrupted: the server ended before it was whole; ask for it again"
WAITS = "waits for other exports to end"
#: what the child needs of our environment: no secrets
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "NANOCHAT_UP")


class Busy(ServiceError):
    status, code = 503, "busy"


class Exporter:
    """`ask` for an export, `look` at those of a checkpoint. One at a time of a checkpoint, `AT_ONCE` in all.

    `command` starts an exporter; tests put another one there.
    """

    command: Sequence[str] = EXPORT

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._waiting: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        await asyncio.to_thread(self._clear)

    async def stop(self) -> None:
        """End what is being made; it can be asked for again."""
        await end(*self._jobs.values())

    async def ask(self, place: Place, path: str) -> None:
        """Make the export of the checkpoint at `path`, unless it is there or under way. Raises Busy."""
        if place.key in self._jobs or place.directory.is_dir():
            return
        if len(self._jobs) >= MOST:
            raise Busy(f"{MOST} exports wait already; try again when some have ended")
        begun = asyncio.Event()
        job = asyncio.create_task(self._make(place, path, begun), name=f"export {place.key}")
        self._jobs[place.key] = job
        job.add_done_callback(lambda _: self._jobs.pop(place.key))
        await begun.wait()
        if job.done() and not job.cancelled() and (error := job.exception()) is not None:
            raise error

    async def look(self, checkpoint: str) -> list[Export]:
        """The checkpoint's exports, the newest first."""
        places = places_of(self._settings.base_dir, checkpoint)
        found = [export for place in places if (export := await asyncio.to_thread(self._see, place))]
        return sorted(found, key=lambda export: export.created_at, reverse=True)

    # ------------------------------------------------------------ making

    async def _make(self, place: Place, path: str, begun: asyncio.Event) -> None:
        try:
            lock = await asyncio.to_thread(_take, place)
        finally:
            begun.set()
        if lock is None:  # another server is at it
            return
        started = time.monotonic()
        try:
            why = await self._in_turn(place, path, lock)
            _write(lock, why)
        except Exception as error:
            log.exception("export %s", place.key)
            _write(lock, f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])
        else:
            log.info("export %s: %s after %.1f s", place.key, why or "ready", time.monotonic() - started)
        finally:
            await asyncio.to_thread(place.clear)
            lock.close()

    async def _in_turn(self, place: Place, path: str, lock: IO[str]) -> str:
        """Why there is none; empty: there is."""
        turn = self._turns.setdefault(place.checkpoint, asyncio.Lock())
        self._waiting.add(place.key)
        try:
            async with turn, self._slots:
                self._waiting.discard(place.key)
                source = await files.directory(self._settings, path)
                return await self._export(place, source, lock) if source else "its files are not on this host"
        finally:
            self._waiting.discard(place.key)

    async def _export(self, place: Place, source: Path, lock: IO[str]) -> str:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {"NANOCHAT_BASE_DIR": str(self._settings.base_dir), "OMP_NUM_THREADS": "1"}
        environment["CUDA_VISIBLE_DEVICES"] = ""  # the GPUs are for runs
        process = await asyncio.create_subprocess_exec(
            *(*self.command, str(source), "--out", str(place.directory)),
            *("--format", place.format, "--dtype", place.dtype, "--background"),
            stdin=asyncio.subprocess.PIPE,  # closed by the kernel when we die: then it leaves
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            pass_fds=(lock.fileno(),),
        )
        try:
            async with asyncio.timeout(LONGEST_S):
                said = await _tail(process.stderr)
                code = await process.wait()
        except TimeoutError:
            return f"it was not done after {LONGEST_S / 60:.0f} minutes"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if code < 0:
            return f"it was killed by signal {-code}: is there memory enough?"
        if code == 0 and place.directory.is_dir():
            return ""
        said = said.replace(f"{self._settings.base_dir}/", "")
        return said or f"it ended with exit code {code} and said nothing"

    # ------------------------------------------------------------ looking

    def _see(self, place: Place) -> Export | None:
        # first whether it is made: one that ends while we look has its files by then, or its note
        made = place.key in self._jobs or _is_held(place.note)
        export = Export(
            checkpoint=place.checkpoint,
            name=place.name,
            format=place.format,
            dtype=place.dtype,
            state="running",
            created_at=_changed(place.note),
        )
        if place.directory.is_dir():
            return _whole(place, export)
        if made:
            waits = WAITS if place.key in self._waiting else ""
            return export.model_copy(update={"message": waits})
        why = _read(place.note)
        return export.model_copy(update={"state": "failed", "message": why}) if why else None

    def _clear(self) -> None:
        """Remove what a server that was killed has left half-written."""
        for place in known_places(self._settings.base_dir):
            if not _is_held(place.note):
                place.clear()


def _whole(place: Place, export: Export) -> Export:
    found = sorted(file for file in place.directory.iterdir() if file.is_file() and not file.is_symlink())
    stats = [(file.name, file.stat()) for file in found]
    told = "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}\n" for name, stat in stats)
    return export.model_copy(
        update={
            "state": "ready",
            "files": [name for name, _ in stats],
            "bytes": sum(stat.st_size for _, stat in stats),
            "version": hashlib.sha256(told.encode()).hexdigest()[:32],
            "created_at": _changed(place.directory),
        }
    )


def _take(place: Place) -> IO[str] | None:
    """The note, locked and saying that nothing came of it; None when somebody else has it."""
    place.folder.mkdir(parents=True, exist_ok=True)
    lock = place.note.open("a+", encoding="utf-8")
    for _ in range(TRIES):  # somebody may just be looking
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            place.clear()
            _write(lock, INTERRUPTED)
            return lock
    lock.close()
    return None


def _write(lock: IO[str], text: str) -> None:
    lock.truncate(0)
    lock.write(text)
    lock.flush()


def _is_held(note: Path) -> bool:
    try:
        with note.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _read(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8", errors="replace")[:LONGEST_MESSAGE]
    except FileNotFoundError:
        return ""


def _changed(place: Path) -> datetime:
    """When it was last written; now, when it is not there."""
    try:
        return datetime.fromtimestamp(place.stat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.now(UTC)


async def _tail(output: asyncio.StreamReader | None) -> str:
    """The last line that it says, once it says no more."""
    assert output is not None
    said = b""
    while data := await output.read(65536):
        said = (said + data)[-TAIL_BYTES:]
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("export: ")[:LONGEST_MESSAGE] if lines else ""
