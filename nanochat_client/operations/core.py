"""An operation is one call of the API as data: what is sent, and how the answer is read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import JsonValue, TypeAdapter, ValidationError

from nanochat_client.errors import ServerError

T = TypeVar("T")
Params = dict[str, Any]
Message = Mapping[str, str]
JsonObject = dict[str, JsonValue]


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One request and the reading of its answer."""

    method: str
    path: str
    parse: Callable[[bytes], T]
    params: Params = field(default_factory=dict)
    body: Any = None
    """Sent as JSON."""
    content: bytes | None = None
    """Sent as it is, instead."""
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = False
    """May be sent again after a connection error."""


def parser(shape: Any) -> Callable[[bytes], Any]:
    """Reads an answer of this shape. Raises ServerError for one that is something else."""

    def parse(body: bytes) -> Any:
        try:
            return TypeAdapter(shape).validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = "/".join(str(part) for part in first["loc"])
            raise ServerError(
                f"the answer is not what this client expects ({first['msg']} at /{where}): is the address "
                "really a nanochat service of this version?",
                code="unexpected_answer",
            ) from None

    return parse


def nothing(body: bytes) -> None:
    """Reads an answer that has no content."""


def get(path: str, shape: Any, **params: Any) -> Operation[Any]:
    """Arguments that are None or empty are not sent."""
    given = {name: value for name, value in params.items() if value not in (None, [], "")}
    return Operation("GET", path, parser(shape), given, repeatable=True)


def post(path: str, shape: Any, body: Any = None, *, creates: bool = False) -> Operation[Any]:
    # with the key a second delivery of the same request makes nothing new, so it may be repeated
    headers = {"idempotency-key": uuid.uuid4().hex} if creates else {}
    return Operation("POST", path, parser(shape), body=body, headers=headers, repeatable=creates)


def delete(path: str, headers: dict[str, str] | None = None) -> Operation[None]:
    return Operation("DELETE", path, nothing, headers=headers or {})


def segment(text: str) -> str:
    """`text` as one part of a path, whatever it is."""
    return quote(text, safe="") or "%20"
