"""Errors of the OpenAI surface."""

from __future__ import annotations


class OpenAIError(Exception):
    """An error object with its status; `retry_after_s` when trying again makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, object]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        headers = {"retry-after": str(self.retry_after_s)} if self.retry_after_s else {}
        if self.status < 500 and self.status != 429:
            headers["x-should-retry"] = "false"
        return headers


def model_not_found(name: str) -> OpenAIError:
    return OpenAIError(
        404,
        f"The model {name!r} does not exist. GET /v1/models lists those that do.",
        code="model_not_found",
        param="model",
    )


def engine_died() -> OpenAIError:
    return OpenAIError(503, "The engine of this model died; it is started again on the next request.",
                       code="engine_died", retry_after_s=1)  # fmt: skip
