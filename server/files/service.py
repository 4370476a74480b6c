"""Taking on an upload, and letting go of a file. Services flush; the commit is at the edge."""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat import files
from nanochat.configurator import MAX_PRESET_BYTES, preset_names
from nanochat_client.types import FileCreate, FileKind, ProblemItem
from server.files import repository, uses
from server.files.refusals import NoRoom, TooLarge
from server.files.repository import REJECTED
from server.models import File
from server.problems import Conflict, Invalid
from server.runs import idempotency
from server.settings import Settings

GIB = 2**30
#: files and uploads there may be, rejected ones included
MOST = 10_000
#: bytes of the disk that uploads leave to others
SPARE_BYTES = GIB // 4


async def known(session: AsyncSession, body: FileCreate) -> File | None:
    """The file of that name, when it is the same one: whole, or to go on with."""
    found = await repository.of_name(session, body.kind, body.name)
    if found is None or found.state == REJECTED or (found.size, found.sha256) != (body.size, body.sha256):
        return None
    return found


async def create(session: AsyncSession, body: FileCreate, file_id: str, settings: Settings) -> File:
    """Store an upload that may begin. Raises Invalid, Conflict, TooLarge, NoRoom: nothing is stored then."""
    _check_name(body)
    _check_size(body, settings)
    await _free_name(session, body)
    held = await repository.held(session)
    if held.count >= MOST:
        raise Conflict(f"there are {held.count:,} files already: delete some first", code="too_many")
    _check_room(body, held, settings)
    file = File(
        id=file_id, kind=body.kind, name=body.name, state=repository.UPLOADING, size=body.size,
        received=0, sha256=body.sha256,
    )  # fmt: skip
    session.add(file)
    await session.flush()
    return file


async def delete(session: AsyncSession, file: File, settings: Settings) -> None:
    """Remove the row; the content is the caller's. Raises Conflict while a run needs the file."""
    if file.state == repository.READY and (found := await uses.runs_with(session, settings.base_dir, file)):
        run, more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise Conflict(
            f"run {run.id} ({run.name}, {run.state}){more} reads this file: let it end, or cancel it, first",
            code="in_use",
        )
    await idempotency.forget(session, file.id)
    await session.delete(file)
    await session.flush()


def _check_name(body: FileCreate) -> None:
    """Raises Invalid with the nearest name that is taken."""
    message, nearest = "", None
    try:
        files.check_name(body.kind, body.name)
    except ValueError as error:
        message, nearest = str(error), files.plain_name(body.name)
        if not nearest.endswith(files.SUFFIXES[body.kind]):
            nearest = None
    if body.kind == FileKind.PRESET and (stem := PurePosixPath(body.name).stem) in preset_names():
        message = f"{stem!r} is a preset that ships: give yours another name"
    if message:
        raise Invalid(message, errors=[ProblemItem(pointer="/name", message=message, nearest=nearest)])


def _check_size(body: FileCreate, settings: Settings) -> None:
    most = int(settings.upload_file_gib * GIB)
    if body.kind == FileKind.PRESET and body.size > MAX_PRESET_BYTES:
        raise TooLarge(f"{body.name} has {body.size:,} bytes: no preset is larger than {MAX_PRESET_BYTES:,}")
    if body.size > most:
        raise TooLarge(
            f"{body.name} has {_gib(body.size)} and one file may have {_gib(most)}: split it, or raise "
            "NANOCHAT_UPLOAD_FILE_GIB"
        )


async def _free_name(session: AsyncSession, body: FileCreate) -> None:
    """Raises Conflict when another file has the name; a rejected one makes room."""
    for name in files.namesakes(body.kind, body.name):
        same = await repository.of_name(session, body.kind, name)
        if same and same.state != REJECTED:
            called = PurePosixPath(name).stem
            raise _taken(f"{name} ({same.id}) is {called!r} too: take another name, or delete that one")
    other = await repository.of_name(session, body.kind, body.name)
    if other is None:
        return
    if other.state != REJECTED:
        what = "there is" if other.state == repository.READY else "somebody uploads"
        message = f"{what} another file named {body.name} ({other.id}): take another name, or delete that one"
        raise _taken(message)
    await idempotency.forget(session, other.id)
    await session.delete(other)
    await session.flush()


def _taken(message: str) -> Conflict:
    return Conflict(message, code="name_taken", errors=[ProblemItem(pointer="/name", message=message)])


def _check_room(body: FileCreate, held: repository.Held, settings: Settings) -> None:
    """Raises NoRoom. What unfinished uploads have announced is theirs already."""
    quota = int(settings.upload_quota_gib * GIB)
    if held.size + body.size > quota:
        raise NoRoom(
            f"uploads take {_gib(held.size)} of {_gib(quota)} and {body.name} has {_gib(body.size)}: delete "
            "files (GET /files lists them), or raise NANOCHAT_UPLOAD_QUOTA_GIB"
        )
    free = shutil.disk_usage(settings.base_dir).free - SPARE_BYTES - held.missing
    if body.size > free:
        raise NoRoom(
            f"the disk has room for {_gib(max(0, free))} more and {body.name} has {_gib(body.size)}: free "
            "space, or move NANOCHAT_BASE_DIR to a larger disk",
            code="disk_full",
        )


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
