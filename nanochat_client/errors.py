"""Errors of the SDK. Each carries what the service said, so that a program can act on it.

NanochatError
├── ConnectionFailed      nothing answers at the address
├── RunFailed             a run that was waited for has not succeeded; `code` is its reason
├── ExportFailed          an export that was waited for has failed
└── ApiError              the service answered with an error
    ├── BadRequest        400 and every other 4xx without a class of its own
    ├── Unauthorized      401
    ├── Forbidden         403
    ├── NotFound          404
    ├── Conflict          409, 412: the state forbids it
    ├── Invalid           422: `errors` has JSON pointers and the nearest valid values
    └── ServerError       5xx, and answers that are not the service's
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat_client.types import ProblemItem


class NanochatError(Exception):
    """`detail` is one sentence; `code` is stable for programs."""

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str = "error",
        errors: Sequence[ProblemItem] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.errors = list(errors)
        self.request_id = request_id


class ConnectionFailed(NanochatError):
    """Nothing answers, or the connection broke before the answer was complete."""


class RunFailed(NanochatError):
    """A run that was waited for has failed or was cancelled; `code` is its reason, else its state."""


class ExportFailed(NanochatError):
    """An export that was waited for has failed; `detail` says why."""


class ApiError(NanochatError):
    """The service answered with an error."""


class BadRequest(ApiError): ...


class Unauthorized(ApiError): ...


class Forbidden(ApiError): ...


class NotFound(ApiError): ...


class Conflict(ApiError): ...


class Invalid(ApiError): ...


class ServerError(ApiError): ...


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 412: Conflict, 422: Invalid,
}  # fmt: skip


def from_answer(status: int, body: bytes, request_id: str | None) -> ApiError:
    """The error for an answer with a status of 400 or more; reads problem documents and OpenAI errors."""
    kind = _BY_STATUS.get(status, ServerError if status >= 500 or status < 400 else BadRequest)
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return kind(f"the server answered {status} without saying why", status=status, request_id=request_id)
    items: list[ProblemItem] = []
    if isinstance(document.get("error"), dict):
        document = document["error"]
        detail = document.get("message")
        if document.get("param"):
            items = [_item({"pointer": f"/{document['param']}", "message": detail})]
    else:
        detail = document.get("detail")
        request_id = document.get("request_id") or request_id
        found = document.get("errors")
        items = [_item(entry) for entry in found if isinstance(entry, dict)] if found else []
    return kind(
        str(detail or f"the server answered {status}"),
        status=status,
        code=str(document.get("code") or "error"),
        errors=items,
        request_id=request_id,
    )


def _item(entry: dict[str, Any]) -> ProblemItem:
    from nanochat_client.types import ProblemItem  # the models take a while to load, and errors are rare

    return ProblemItem(
        pointer=str(entry.get("pointer", "")),
        message=str(entry.get("message", "")),
        nearest=entry.get("nearest"),
    )
