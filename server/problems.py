"""Errors as RFC 9457 problem documents (`application/problem+json`), and as OpenAI errors under /v1.

ServiceError            anything a caller may see: status, code, what to do
├── NotFound            404
├── Conflict            409: the state forbids it
├── Invalid             422: with JSON pointers and the nearest valid values
└── Unauthorized        401
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nanochat.configurator import ConfigError, PresetError
from nanochat_client.types import ProblemDocument, ProblemItem
from server.inference.errors import error_body
from server.policy import Policy

MEDIA_TYPE = "application/problem+json"


class ServiceError(Exception):
    """An error with an answer. `code` is stable for programs, `detail` says what to do next."""

    status = 500
    code = "internal"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[ProblemItem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.headers: dict[str, str] = {}


class NotFound(ServiceError):
    status, code = 404, "not_found"


class Conflict(ServiceError):
    status, code = 409, "conflict"


class Invalid(ServiceError):
    status, code = 422, "invalid"


class Unauthorized(ServiceError):
    status, code = 401, "unauthorized"


TITLES = {
    400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    408: "Too slow", 409: "Conflict", 412: "Precondition failed", 413: "Too large", 422: "Invalid",
    500: "Internal error", 503: "Unavailable", 507: "No room",
}  # fmt: skip


def problem(
    request: Request, status: int, code: str, detail: str, errors: Sequence[ProblemItem] = ()
) -> JSONResponse:
    """The answer for an error on `request`."""
    request_id = request.scope.get("request_id", "")
    if request.url.path == "/v1" or request.url.path.startswith("/v1/"):
        return openai_error(400 if status == 422 else status, detail, code)
    document = ProblemDocument(
        title=TITLES.get(status, "Error"),
        status=status,
        code=code,
        detail=detail,
        errors=list(errors),
        request_id=request_id,
    )
    return JSONResponse(document.model_dump(mode="json"), status, media_type=MEDIA_TYPE)


def openai_error(status: int, message: str, code: str) -> JSONResponse:
    """The error object that OpenAI clients read; the request's id is in the header x-request-id."""
    headers = {"x-should-retry": "false"} if status < 500 and status != 429 else None
    return JSONResponse(error_body(status, message, code, None), status, headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers."""
    known = Policy()

    @app.exception_handler(ServiceError)
    async def _service(request: Request, error: ServiceError) -> JSONResponse:
        answer = problem(request, error.status, error.code, error.detail, error.errors)
        answer.headers.update(error.headers)
        return answer

    @app.exception_handler(ConfigError)
    async def _config(request: Request, error: ConfigError) -> JSONResponse:
        items = [ProblemItem(pointer=p.pointer, message=p.message, nearest=p.nearest) for p in error.problems]
        return problem(request, 422, "invalid_config", str(error), items)

    @app.exception_handler(PresetError)
    async def _preset(request: Request, error: PresetError) -> JSONResponse:
        return problem(request, 422, "invalid_preset", str(error))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        items = [_item(entry) for entry in error.errors()]
        if any(entry["type"] == "json_invalid" for entry in error.errors()):
            return problem(
                request, 400, "invalid_json", f"the body is no valid JSON: {items[0].message}", items
            )
        detail = "; ".join(f"{item.pointer}: {item.message}" for item in items)
        return problem(request, 422, "invalid", detail, items)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = TITLES.get(error.status_code, "error").lower().replace(" ", "_")
        answer = problem(request, error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        if error.status_code == 405:  # the router knows the methods of one route, not of all on this path
            answer.headers["allow"] = ", ".join(known.methods(request.url.path))
        return answer

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        del error  # the traceback is in the server's log under the same request id
        answer = problem(
            request, 500, "internal", "something broke here; the server's log has the request id"
        )
        answer.headers["x-request-id"] = request.scope.get("request_id", "")  # made outside the middleware
        return answer


def _item(entry: Any) -> ProblemItem:
    location = [str(part) for part in entry["loc"]]
    if location and location[0] in ("body", "query", "path", "header"):
        location = location[1:]
    context = entry.get("ctx") or {}
    nearest = next((context[key] for key in ("ge", "le") if key in context), None)
    return ProblemItem(
        pointer="".join(f"/{part}" for part in location), message=entry["msg"], nearest=nearest
    )
