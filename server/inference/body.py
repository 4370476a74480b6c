"""The body of a request, parsed by hand so that every error names its parameter in OpenAI's shape."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from server.inference.errors import OpenAIError, invalid

MAX_BODY_BYTES = 16 * 1024 * 1024
Body = TypeVar("Body", bound=BaseModel)
_TYPE_NAMES = ("str", "int", "float", "bool")


async def read(request: Request, kind: type[Body]) -> Body:
    """The request's body. Raises OpenAIError 400 or 413."""
    data = parse(await _bytes(request))
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise explained(error) from None


def parse(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises OpenAIError 400; NaN, Infinity and lone surrogates are no JSON."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The body is no valid JSON: {error}.", None, "invalid_json") from None
    if not isinstance(data, dict):
        raise invalid("The body must be a JSON object.", None)
    return data


def explained(error: ValidationError) -> OpenAIError:
    """The first thing that is wrong, with the parameter's name."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"] if not _is_type_name(part)) or None
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return invalid(f"{param}: {first['msg']}.", param, code)


async def _bytes(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def _too_large() -> OpenAIError:
    return OpenAIError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", code="too_large")


def _is_type_name(part: int | str) -> bool:
    """Names pydantic adds for the members of a union, such as `list[TextPart]` or `constrained-str`."""
    return isinstance(part, str) and (part in _TYPE_NAMES or "[" in part or "-" in part)
