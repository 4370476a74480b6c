"""Errors as the service tells them."""

from __future__ import annotations

from pydantic import JsonValue

from nanochat_client.types.wire import Wire


class ProblemItem(Wire):
    """One entry of `errors` in a problem document."""

    pointer: str
    message: str
    nearest: JsonValue = None


class ProblemDocument(Wire):
    """RFC 9457 `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[ProblemItem] = []
    request_id: str
