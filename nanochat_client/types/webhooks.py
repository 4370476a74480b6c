"""What travels over /webhooks, and the body that a receiver gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from nanochat_client.types.runs import RunState
from nanochat_client.types.wire import Request, Storable, Wire

#: what a webhook can ask for; `run.*` and `alert.*` mean all of a kind
TYPES = (*(f"run.{state}" for state in RunState), "alert.raised", "alert.cleared")
PING = "ping"
#: a set that a receiver names: `run.failed`, `run.*`, `alert.*`
Topic = Annotated[str, Field(pattern=rf"^(run\.(\*|{'|'.join(RunState)})|alert\.(\*|raised|cleared))$")]


#: no user name: the part before the host would hold an @. Where the address leads is no matter of its form
URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\x00-\x20\x7f/?#@:\[\]\\]+(:[0-9]{1,5})?([/?#][^\x00-\x20\x7f]*)?$"


class WebhookCreate(Request):
    url: str = Field(min_length=8, max_length=2048, json_schema_extra={"pattern": URL})
    """http:// or https://, without user name and password."""
    events: list[Topic] = Field(default=["run.*", "alert.*"], min_length=1, max_length=32)
    """Of what to tell: run.<state>, run.*, alert.raised, alert.cleared, alert.*."""
    name: Storable = Field(default="", max_length=64)


class Webhook(Wire):
    id: str
    url: str
    events: list[str]
    name: str = ""
    created_at: datetime
    pending: int = 0
    """Messages that are still to be delivered."""
    last_status: int | None = None
    """How the receiver answered the last time that something ended, delivered or given up."""
    last_error: str | None = None


class WebhookCreated(Webhook):
    secret: str
    """Signs every message (HMAC-SHA256). Shown once."""


class Delivery(Wire):
    id: str
    """The header webhook-id: the same in every try, so that a receiver knows a repetition."""
    type: str
    state: Literal["pending", "delivered", "failed"]
    tries: int
    status: int | None = None
    """HTTP status of the last answer."""
    error: str | None = None
    created_at: datetime
    next_at: datetime | None = None
    """When it is tried again."""
    ended_at: datetime | None = None


class Notice(Wire):
    """The body of a message: what happened, when, and to what."""

    type: str
    timestamp: datetime
    data: dict[str, JsonValue]
