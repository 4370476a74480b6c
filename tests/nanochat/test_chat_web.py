"""scripts/chat_web.py: as a person starts it, and what its routes say over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from nanochat.checkpoint import save_checkpoint
from nanochat.paths import repo_dir, step_dir
from tests.nanochat.chat_pages import CONTEXT, NAME, Page, chat_page
from tests.nanochat.engine import tiny
from tests.services import eventually

ASK: list[Any] = [{"role": "user", "content": "What is a class?"}]
ENDLESS = 65_536  # a context that no test waits to be filled
LONG = {"messages": ASK, "max_tokens": 60_000, "stream": True}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chat_page() as page:
        yield page


@pytest.fixture
def client(page: Page) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{page.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


HTTP = httpx.Client(timeout=60)


def post(page: Page, body: Any, **more: Any) -> httpx.Response:
    return HTTP.post(f"{page.url}/v1/chat/completions", json=body, **more)


@contextlib.contextmanager
def long_answer(page: Page) -> Iterator[Iterator[str]]:
    """The lines of a stream that has begun and will not end."""
    with HTTP.stream("POST", f"{page.url}/v1/chat/completions", json=LONG) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        yield lines


# ---------------------------------------------------------------- answers


def test_streamed_text_is_the_text_in_one_piece(client: openai.OpenAI) -> None:
    same: dict[str, Any] = {"model": NAME, "messages": ASK, "seed": 5, "max_tokens": 40, "n": 2}
    whole = client.chat.completions.create(**same)
    assert [choice.finish_reason for choice in whole.choices] == ["length", "length"]
    texts, roles, reasons, usage = ["", ""], ["", ""], ["", ""], None
    with client.chat.completions.create(
        **same, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                roles[choice.index] += choice.delta.role or ""
                reasons[choice.index] += choice.finish_reason or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1] and all(texts)
    assert (roles, reasons) == (["assistant"] * 2, ["length"] * 2)
    assert usage is not None and whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens == 80
    assert usage.prompt_tokens == whole.usage.prompt_tokens > 4


def test_what_a_request_leaves_out_is_as_the_flags_say() -> None:
    flags = ("--max_tokens=7", "--temperature=0", "--top_k=3")
    with chat_page(CONTEXT, 4, 8, *flags) as page:
        first, second = (post(page, {"messages": ASK}).json() for _ in range(2))
        assert first["choices"] == second["choices"]
        assert first["usage"]["completion_tokens"] == 7
        other = post(page, {"messages": ASK, "max_completion_tokens": 9, "temperature": 1.5}).json()
        assert other["usage"]["completion_tokens"] == 9


def test_conversations_go_on_beside_each_other_and_each_is_as_if_alone(page: Page) -> None:
    bodies = [
        {"messages": [{"role": "user", "content": f"Number {i}"}], "seed": i, "max_tokens": 60}
        for i in range(8)
    ]
    alone = [post(page, body).json()["choices"] for body in bodies]
    passes = page.engine.passes
    with ThreadPoolExecutor(8) as pool:
        together = [answer.json()["choices"] for answer in pool.map(lambda body: post(page, body), bodies)]
    assert together == alone
    assert page.engine.passes - passes < 8 * 60 * 0.75, "they did not share passes"


def test_a_short_answer_does_not_wait_for_a_long_one() -> None:
    with chat_page(ENDLESS) as page, long_answer(page):
        short = post(page, {"messages": ASK, "max_tokens": 3})
        assert short.json()["usage"]["completion_tokens"] == 3
        eventually(lambda: page.thread.requests == 1)  # the long one goes on


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(stream: bool) -> None:
    with chat_page(ENDLESS, lanes=1) as page:
        body = json.dumps({**LONG, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(page.server.server_address[:2], 30) as connection:
            connection.sendall(head.encode() + body)
            eventually(lambda: page.engine.generated_tokens > 0)
            if stream:
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: page.thread.requests == 0)
        eventually(lambda: not page.engine.busy)
        assert page.engine.blocks.used == 0 and page.engine.generated_tokens < 60_000
        assert post(page, {"messages": ASK, "max_tokens": 2}).status_code == 200


def test_stop_strings_end_an_answer_before_them(page: Page) -> None:
    same = {"messages": ASK, "seed": 5, "max_tokens": 40}
    whole = post(page, same).json()["choices"][0]["message"]["content"]
    stop = whole[10:13]
    cut = post(page, {**same, "stop": [stop]}).json()["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(stop)] and cut["finish_reason"] == "stop"


def test_system_text_goes_into_the_first_question_and_parts_are_text(page: Page) -> None:
    same = {"seed": 1, "max_tokens": 12}
    split = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Why?"}]
    parts = [{"type": "text", "text": "Short.\n\n"}, {"type": "text", "text": "Why?"}]
    one = post(page, {**same, "messages": split})
    other = post(page, {**same, "messages": [{"role": "user", "content": parts}]})
    assert one.json()["choices"] == other.json()["choices"]
    assert one.json()["usage"]["prompt_tokens"] == other.json()["usage"]["prompt_tokens"]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "assistant", "content": "I begin"}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"n": 100}, "n", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "word " * 300}]}, "messages", "context_length_exceeded"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    page: Page, change: dict[str, Any], param: str, code: str
) -> None:
    answer = post(page, {"messages": ASK, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["message"] and error["type"] == "invalid_request_error"
    eventually(lambda: page.thread.requests == 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'{"messages": [], "temperature": NaN}'])
def test_a_body_that_is_no_request_is_a_400(page: Page, body: bytes) -> None:
    answer = HTTP.post(f"{page.url}/v1/chat/completions", content=body)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_numbers_that_are_none_are_refused(page: Page) -> None:
    text = json.dumps({"messages": ASK, "temperature": float("nan")})
    answer = HTTP.post(f"{page.url}/v1/chat/completions", content=text)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temperature")


def test_one_model_is_here_and_no_other(page: Page, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "nanochat"
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-9", messages=ASK)
    assert raised.value.code == "model_not_found"
    assert client.chat.completions.create(model="latest", messages=ASK, max_tokens=1).choices


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/v1/embeddings", 404), ("PUT", "/", 501), ("GET", "/../x", 404)],
)
def test_other_routes_are_refused_in_the_same_shape(page: Page, method: str, path: str, status: int) -> None:
    answer = HTTP.request(method, page.url + path, content=b"" if method == "POST" else None)
    assert answer.status_code == status and answer.json()["error"]["message"]


def test_a_huge_body_is_refused_before_it_is_read(page: Page) -> None:
    with socket.create_connection(page.server.server_address[:2], 10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}]
)
def test_pages_of_others_may_not_ask(page: Page, headers: dict[str, str]) -> None:
    answer = post(page, {"messages": ASK}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_more_than_may_wait_are_told_to_come_back() -> None:
    with chat_page(ENDLESS, lanes=1, most=2) as page, long_answer(page):
        with HTTP.stream("POST", f"{page.url}/v1/chat/completions", json=LONG):  # waits for its lane
            refused = post(page, LONG)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "2"
        assert refused.json()["error"]["code"] == "overloaded"


def test_when_the_engine_dies_its_readers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.excepthook", lambda args: None)
    with chat_page(ENDLESS) as page:
        with long_answer(page) as lines:

            def fail(batch: object) -> None:
                raise MemoryError

            page.engine.runner.forward = fail  # type: ignore[assignment, method-assign]
            said = [line for line in lines if line]
        assert json.loads(said[-2].removeprefix("data: "))["error"]["code"] == "engine_died"
        assert said[-1] == "data: [DONE]"
        assert post(page, {"messages": ASK}).status_code == 503


# ---------------------------------------------------------------- the door


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model = tiny.without_specials(tiny.tiny_model(context=CONTEXT))
    save_checkpoint(step_dir(tmp_path, "sft", "d1", 3), model, tiny.TOKENIZER, {"stage": "sft", "step": 3})
    return tmp_path


def door(base: Path, *argv: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(repo_dir() / "scripts" / "chat_web.py"), *argv]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True, cwd=base)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_the_newest_model_and_leaves_when_told(base: Path, how: signal.Signals) -> None:
    with door(base, "--port=0") as process:
        assert process.stdout is not None and process.stderr is not None
        words = process.stdout.readline().split()
        url = next(word for word in words if word.startswith("http://127.0.0.1:")).rstrip(";")
        assert words[0] == NAME
        page = httpx.get(url)
        assert page.status_code == 200 and "<textarea" in page.text and "NONCE" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": ASK, "max_tokens": 5})
        assert answer.json()["usage"]["completion_tokens"] == 5
        process.send_signal(how)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_help_lists_every_flag(base: Path) -> None:
    with door(base, "--help") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    for flag in ("--checkpoint", "--port", "--host", "--max_tokens", "--temperature", "--top_k", "--slots"):
        assert flag in said


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--checkpoint=nowhere"], 1, "nowhere"),
        (["--max_tokens=0"], 2, "--max_tokens"),
        (["--port=99999"], 2, "--port"),
        (["--host=0.0.0.0"], 2, "loopback"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(base: Path, argv: list[str], code: int, says: str) -> None:
    with door(base, *argv) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == code and says in said and "Traceback" not in said


def test_a_taken_port_is_said_in_one_sentence(base: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        door(base, f"--port={taken.getsockname()[1]}") as process,
    ):
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "--port" in said and "Traceback" not in said
