"""Files over HTTP: announced by POST, sent in parts by PATCH, which go on where the last one ended."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Request, Response
from starlette.requests import ClientDisconnect

from nanochat_client.types import File, FileCreate, FileKind, Page
from nanochat_client.types.keys import Scope
from server import models
from server.deps import Read, ServicesDep, Write
from server.files import repository, service
from server.files.keeper import Keeper
from server.files.views import file_view
from server.ids import new_id
from server.keys.ring import Caller
from server.problems import ServiceError
from server.runs import idempotency
from server.runs.pages import Cursor, Limit, decode, next_cursor
from server.runs.resolve import check_text

router = APIRouter(prefix="/files", tags=["files"])
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, le=2**53)]
#: a check that takes longer is looked for with GET
CHECK_WAIT_S = 10.0
BYTES: dict[str, Any] = {
    "requestBody": {
        "required": False,  # a part of no bytes changes nothing
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Broken(ServiceError):
    status, code = 400, "broken_connection"


def _answer(file: models.File, response: Response) -> File:
    response.headers["location"] = f"/files/{file.id}"
    response.headers["upload-offset"] = str(file.received)
    return file_view(file)


@router.post("", status_code=201, responses={200: {"model": File, "description": "It was announced before"}})
async def create_file(
    body: FileCreate, response: Response, session: Write, services: ServicesDep, key: idempotency.Key = None
) -> File:
    """Announce a file. The answer's `offset` says where its bytes begin: of the same file that was announced
    before, whole or not, where they go on.

    413: larger than one file may be. 507: no room. 409: another file has the name. 422 also for a preset
    named as one that ships.
    """
    check_text(body.name, "/name")
    await repository.one_at_a_time(session)
    found = await service.known(session, body)
    fresh = new_id("f")
    if earlier := await idempotency.repeated(session, key, "POST /files", body, found.id if found else fresh):
        return _answer(await repository.get(session, earlier), response)
    if found is not None:
        response.status_code = 200
        return _answer(found, response)
    return _answer(await service.create(session, body, fresh, services.settings), response)


@router.get("")
async def list_files(
    session: Read,
    kind: FileKind | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[File]:
    """Files and uploads, newest first."""
    query = repository.newest_first(kind, decode(cursor))
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return Page(items=[file_view(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit))


@router.get("/{file_id}")
async def get_file(file_id: str, response: Response, session: Read) -> File:
    """How far it is, and what its check found."""
    return _answer(await repository.get(session, file_id), response)


@router.patch("/{file_id}", openapi_extra=BYTES)
async def append_to_file(file_id: str, offset: Offset, request: Request, response: Response) -> File:
    """Send the bytes from `Upload-Offset` on, all of them or a part; what is answered is on the disk.

    409 `wrong_offset`: the header `Upload-Offset` of the answer says from where. After the last byte the file
    is checked: `state` is `ready`, `rejected`, or for a large one `checking` first.
    """
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() and len(length) < 20 else None
    try:
        file = await _keeper(request).append(file_id, offset, announced, request.stream(), CHECK_WAIT_S)
    except ClientDisconnect:
        raise Broken("the connection broke: ask for the offset and go on") from None  # nobody reads it
    return _answer(file, response)


@router.delete("/{file_id}", status_code=204)
async def delete_file(file_id: str, request: Request) -> None:
    """Remove a file or an upload. 409 `in_use` while a run that is not over reads it."""
    caller = cast(Caller | None, getattr(request.state, "caller", None))
    await _keeper(request).delete(file_id, ready=caller is None or Scope.OPERATE in caller.scopes)


def _keeper(request: Request) -> Keeper:
    return cast(Keeper, request.app.state.files)
