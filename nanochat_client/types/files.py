"""What travels over /files. The content itself is bytes: `PATCH /files/{id}`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from nanochat_client.types.wire import Request, Whole, Wire


class FileKind(StrEnum):
    CONVERSATIONS = "conversations"
    """JSONL, a conversation in each line: for mid and sft."""
    TEXT = "text"
    """txt, md, jsonl or parquet: for the tokenizer and base."""
    PRESET = "preset"
    """py (assignments of literals) or json (one object): a config by its name."""


class FileState(StrEnum):
    UPLOADING = "uploading"
    CHECKING = "checking"
    """All of it is here, and being read."""
    READY = "ready"
    REJECTED = "rejected"
    """`message` says why. Its content is gone; the entry goes a day later."""


class FileCreate(Request):
    name: str = Field(min_length=1, max_length=255)
    """Small letters, digits, dot, dash, underscore; the ending says the format."""
    kind: FileKind
    size: Whole = Field(ge=1, le=2**53)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of all of it, hex."""


class File(Wire):
    id: str
    name: str
    kind: FileKind
    state: FileState
    size: int
    """Bytes."""
    offset: int
    """Bytes that are here: where the next part begins."""
    sha256: str
    path: str
    """Below the base directory: what a run is told, once it is ready."""
    items: int | None = None
    """Conversations or documents in it; null for a preset."""
    message: str | None = None
    """Why it was rejected: names the first bad line."""
    created_at: datetime
    ready_at: datetime | None = None
    expires_at: datetime | None = None
    """When it goes by itself; null for one that is ready."""
