"""Files of users: announce one, send its parts, list, delete."""

from __future__ import annotations

from nanochat_client import types
from nanochat_client.operations.core import JsonObject, Operation, delete, get, parser, post, segment


def create_file(name: str, *, kind: str, size: int, sha256: str) -> Operation[types.File]:
    """Announce a file; its bytes go from the answer's `offset` on. The same one again: where it goes on."""
    body: JsonObject = {"name": name, "kind": kind, "size": size, "sha256": sha256}
    return post("/files", types.File, body, creates=True)


def append(file_id: str, data: bytes, offset: int) -> Operation[types.File]:
    """Send bytes of an announced file: see `nanochat_client.upload`."""
    headers = {"upload-offset": str(offset), "content-type": "application/octet-stream"}
    path = f"/files/{segment(file_id)}"
    return Operation("PATCH", path, parser(types.File), content=data, headers=headers)


def list_files(
    *, kind: str | None = None, cursor: str | None = None, limit: int = 50
) -> Operation[types.Page[types.File]]:
    """Files and uploads, newest first."""
    return get("/files", types.Page[types.File], kind=kind, cursor=cursor, limit=limit)


def get_file(file_id: str) -> Operation[types.File]:
    """How far an upload is, and what its check found. Raises NotFound."""
    return get(f"/files/{segment(file_id)}", types.File)


def delete_file(file_id: str) -> Operation[None]:
    """Remove a file or an upload. Raises Conflict while a run that is not over reads it."""
    return delete(f"/files/{segment(file_id)}")
