"""Rows as the API shows them."""

from __future__ import annotations

from datetime import timedelta

from nanochat import files
from nanochat_client import types
from server.files.repository import REJECTED, UPLOADING
from server.models import File

#: an upload that nothing came for, and the reason of a rejection, are kept so long
KEEP = timedelta(days=1)


def file_view(file: File) -> types.File:
    state = types.FileState(file.state)
    return types.File(
        id=file.id,
        name=file.name,
        kind=types.FileKind(file.kind),
        state=state,
        size=file.size,
        offset=file.received,
        sha256=file.sha256,
        path=files.relative(file.kind, file.name),
        items=file.items,
        message=file.message,
        created_at=file.created_at,
        ready_at=file.ready_at,
        expires_at=file.touched_at + KEEP if state in (UPLOADING, REJECTED) else None,
    )
