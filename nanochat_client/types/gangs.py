"""The worker's protocol for runs over several nodes."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from nanochat_client.types.wire import STORABLE, Request, Whole, Wire


class MemberState(StrEnum):
    """Of a node beside the first."""

    SENT = "sent"  # a message waits for its worker
    JOINED = "joined"
    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"


class Gathering(Request):
    """Node 0 is ready to start."""

    fence: Whole
    endpoint: str = Field(max_length=300, pattern=STORABLE)
    """host:port where the nodes meet; node 0 listens there."""
    resume_from: str | None = Field(default=None, max_length=4096, pattern=STORABLE)
    """The checkpoint that all go on from; empty: none, from the beginning; null: as the config says."""


class Gathered(Wire):
    go: Literal["wait", "run", "stop"]
    endpoint: str = ""
    resume_from: str | None = None
