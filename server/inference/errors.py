"""Errors of the OpenAI surface, and the answers they become."""

from __future__ import annotations

from typing import Any

#: the official client gives up at once when it is told to wait longer
LONGEST_RETRY_S = 120


class OpenAIError(Exception):
    """An error object with its status; `retry_after_s` when trying again makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        return error_body(self.status, self.message, self.code, self.param)

    @property
    def headers(self) -> dict[str, str]:
        return retry_headers(self.retry_after_s)


def error_body(status: int, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    """The object that OpenAI clients read."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def retry_headers(retry_after_s: float | None) -> dict[str, str]:
    """Whether the client's own retries can help: the official one repeats 408, 409, 429 and 5xx unasked."""
    if retry_after_s is None:
        return {"x-should-retry": "false"}
    return {"retry-after": str(min(LONGEST_RETRY_S, max(1, round(retry_after_s))))}


def invalid(message: str, param: str | None, code: str = "invalid_value") -> OpenAIError:
    return OpenAIError(400, message, code=code, param=param)


def model_not_found(name: str) -> OpenAIError:
    return OpenAIError(
        404,
        f"The model {name!r} does not exist. GET /v1/models lists those that do.",
        code="model_not_found",
        param="model",
    )


def model_loading(name: str, waited_s: float) -> OpenAIError:
    message = f"The model {name!r} is still loading after {waited_s:.0f} s; try again in a moment."
    return OpenAIError(503, message, code="model_loading", retry_after_s=5)


def load_failed(name: str, reason: str) -> OpenAIError:
    return OpenAIError(500, f"The model {name!r} did not load: {reason}", code="model_load_failed")


def overloaded(message: str, retry_after_s: float) -> OpenAIError:
    return OpenAIError(503, message, code="overloaded", retry_after_s=retry_after_s)


def engine_died(reason: str = "") -> OpenAIError:
    said = f" ({reason})" if reason else ""
    message = f"The engine of this model died{said}; it is started again on the next request."
    return OpenAIError(503, message, code="engine_died", retry_after_s=1)


def model_unloaded(why: str) -> OpenAIError:
    return OpenAIError(503, f"The model was unloaded: {why}.", code="model_unloaded", retry_after_s=2)
