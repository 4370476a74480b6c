"""What every wire type is built on."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
Name = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"


class Wire(BaseModel):
    """Answers: read by clients that may be older than the server, so unknown keys are ignored."""

    # a program uses few of these models: each is built when it is first used, which halves the import
    model_config = ConfigDict(use_attribute_docstrings=True, defer_build=True)


class Request(Wire):
    """Requests: an unknown key is the caller's mistake and is refused."""

    model_config = ConfigDict(extra="forbid", defer_build=False)


class Page(Wire, Generic[T]):
    items: list[T]
    next_cursor: str | None = None
