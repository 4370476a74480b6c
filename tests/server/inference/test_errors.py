"""Bad input: the right status, the parameter's name, OpenAI's error object, and a server that lives on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

ASK = [{"role": "user", "content": "Who are you?"}]


def ask(http: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"model": "latest", "messages": ASK, "max_tokens": 2, **changes}
    return http.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "nope"}, 404, "model_not_found", "model"),
        ({"model": "a\0b"}, 404, "model_not_found", "model"),
        ({"model": "tiny-run:sft:8"}, 404, "model_not_found", "model"),
        ({"model": "tiny-run:sft:7:1"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_value", "model"),
        ({"messages": [{"role": "user", "content": "w " * 500}]}, 400, "context_length_exceeded", "messages"),
        ({"temperature": 9}, 400, "invalid_value", "temperature"),
        ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
        ({"temperature": -0.1}, 400, "invalid_value", "temperature"),
        ({"top_p": 0}, 400, "invalid_value", "top_p"),
        ({"top_k": -2}, 400, "invalid_value", "top_k"),
        ({"min_p": 1.1}, 400, "invalid_value", "min_p"),
        ({"presence_penalty": 2.1}, 400, "invalid_value", "presence_penalty"),
        ({"frequency_penalty": -2.1}, 400, "invalid_value", "frequency_penalty"),
        ({"repetition_penalty": 0}, 400, "invalid_value", "repetition_penalty"),
        ({"max_tokens": -1}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        ({"max_completion_tokens": 0}, 400, "invalid_value", "max_completion_tokens"),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"n": 100}, 400, "invalid_value", "n"),
        ({"seed": 2**64}, 400, "invalid_value", "seed"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": "hello"}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "messages.0"),
        ({"messages": [*ASK, {"role": "assistant", "content": "x"}]}, 400, "invalid_value", "messages"),
        ({"messages": [{"content": "x"}]}, 400, "missing_required_parameter", "messages.0.role"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
        ({"modalities": ["audio"]}, 400, "unsupported_parameter", "modalities"),
        ({"echo": True}, 400, "unsupported_parameter", "echo"),
        ({"stop": ["x" * 100_000]}, 400, "invalid_value", "stop"),
        ({"stop": ["x"] * 5}, 400, "invalid_value", "stop"),
        ({"stop": [1]}, 400, "invalid_value", "stop"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 2}, 400, "invalid_value", "top_logprobs"),
        ({"logit_bias": {str(k): 1 for k in range(10_000)}}, 400, "invalid_value", "logit_bias"),
        ({"logit_bias": {"word": 1}}, 400, "invalid_value", "logit_bias"),
        ({"logit_bias": {"-1": 1}}, 400, "invalid_value", "logit_bias"),
        ({"logit_bias": {"1": 101}}, 400, "invalid_value", "logit_bias"),
        ({"logit_bias": {"399999": 1}}, 400, "invalid_value", "logit_bias"),
        ({"logit_bias": [1]}, 400, "invalid_value", "logit_bias"),
        ({"stream_options": 1}, 400, "invalid_value", "stream_options"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    http: httpx.Client, changes: dict[str, Any], status: int, code: str, param: str
) -> None:
    for stream in (False, True):
        answer = ask(http, stream=stream, **changes)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), error
        assert error["param"].startswith(param)
        assert error["type"] == "invalid_request_error" and len(error["message"]) < 500
        assert answer.headers["x-request-id"] and answer.headers["x-should-retry"] == "false"


def test_what_is_unknown_or_asks_for_nothing_is_ignored(http: httpx.Client) -> None:
    answer = ask(
        http, wizardry=1, user="u", tools=[], tool_choice="none", response_format={"type": "text"},
        stop=None, logit_bias={}, n=None, stream=None, stream_options={"include_usage": None}, top_k=-1,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"", b"\xff", b'"x"', b'{"model": NaN}', b'{"temperature": Infinity}',
        b'{"model": "\\ud800"}', b"[" * 100_000, b'{"temperature": 1e999, "model": "latest", "messages": []}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_400_in_the_same_shape(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_huge_body_is_413_whether_it_says_its_size_or_not(http: httpx.Client) -> None:
    huge = b" " * (17 * 1024 * 1024)
    assert http.post("/v1/completions", content=huge).json()["error"]["code"] == "too_large"
    pieces = (huge[: 1024 * 1024] for _ in range(17))
    assert http.post("/v1/completions", content=pieces).status_code == 413
    assert ask(http).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/embeddings", 404),
        ("POST", "/v1/responses", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/completions", 405),
    ],
)
def test_what_is_not_there_has_the_same_shape(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")
    assert answer.headers["x-should-retry"] == "false"
    assert ("allow" in answer.headers) == (status == 405)


def test_outside_of_v1_errors_are_problem_documents(http: httpx.Client) -> None:
    for path, body in (("/tokenize", {"model": "nope", "text": "x"}), ("/models/a:b/c/load", None)):
        answer = http.post(path, json=body)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
