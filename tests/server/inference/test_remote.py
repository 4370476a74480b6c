"""NANOCHAT_ENGINE_URL: one of our servers generates for another, as any OpenAI-compatible engine would."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import openai
import pytest
from pydantic import SecretStr

from nanochat.gpt import GPT
from server.settings import Settings
from tests.server.inference.conftest import MODEL_ID, make_model
from tests.services import WORKER_TOKEN, Service, copy_sqlite, eventually

QUESTION = [{"role": "user", "content": "<|assistant_end|> is text"}]


def front(directory: Path, sqlite_template: Path, valkey_url: str, net: GPT, url: str) -> Service:
    settings = Settings(
        base_dir=directory,
        database_url=copy_sqlite(sqlite_template, directory),
        redis_url=valkey_url,
        worker_token=SecretStr(WORKER_TOKEN),
        engine_url=url,
        engine_key=SecretStr("of the engine"),
    )
    make_model(settings, net)
    return Service(settings).start()


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    valkey_url: str,
    net: GPT,
    served: Service,
) -> Iterator[Service]:
    """A service that has the checkpoint, but no engine of its own."""
    running = front(tmp_path_factory.mktemp("front"), sqlite_template, valkey_url, net, served.base_url)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def there(gateway: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_the_answer_is_the_engines(there: openai.OpenAI, api: openai.OpenAI) -> None:
    more = {"model": MODEL_ID, "messages": QUESTION, "max_tokens": 12, "temperature": 0, "n": 2}
    mine, theirs = api.chat.completions.create(**more), there.chat.completions.create(**more)  # type: ignore[call-overload]
    assert [c.message.content for c in theirs.choices] == [c.message.content for c in mine.choices]
    assert theirs.choices[0].finish_reason == "length"
    assert (theirs.usage.prompt_tokens, theirs.usage.completion_tokens) == (mine.usage.prompt_tokens, 24)


def test_it_streams_text_and_log_probabilities(there: openai.OpenAI, api: openai.OpenAI) -> None:
    more = {"model": MODEL_ID, "prompt": "The class", "max_tokens": 9, "seed": 3, "logprobs": 2}
    theirs = list(there.completions.create(**more, stream=True))  # type: ignore[call-overload]
    mine = api.completions.create(**more)  # type: ignore[call-overload]
    said = "".join(chunk.choices[0].text for chunk in theirs)
    assert said == mine.choices[0].text
    parts = [chunk.choices[0].logprobs for chunk in theirs if chunk.choices[0].logprobs]
    told = [value for part in parts for value in part.token_logprobs]
    assert told == pytest.approx(mine.choices[0].logprobs.token_logprobs, abs=1e-4)


def test_tokens_are_made_here(gateway: Service, served: Service) -> None:
    body = {"model": MODEL_ID, "messages": QUESTION}
    assert (
        gateway.client.post("/tokenize", json=body).json()
        == served.client.post("/tokenize", json=body).json()
    )
    view = gateway.client.get(f"/v1/models/{MODEL_ID}").json()
    assert (view["loaded"], view["device"]) == (True, "remote")


def test_what_does_not_fit_is_refused_before_it_is_sent(there: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        there.completions.create(model=MODEL_ID, prompt="word " * 500, max_tokens=1)
    assert refused.value.code == "context_length_exceeded"


class Broken(BaseHTTPRequestHandler):
    """An engine that lists a model and then does what its path says."""

    def do_GET(self) -> None:
        assert self.headers["authorization"] == "Bearer of the engine"
        self._send(200, {"data": [{"id": name} for name in self.server.models]})  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert all(isinstance(token, int) for token in body["prompt"])
        if body["max_tokens"] == 1:
            self._send(503, {"error": {"message": "no room here"}})
        elif body["max_tokens"] == 2:
            self.connection.close()
        else:  # say one thing, then hang until the other side leaves
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'data: {"choices": [{"text": "hello", "finish_reason": null}]}\n\n')
            self.wfile.flush()
            self.connection.settimeout(20)
            self.server.left = self.connection.recv(1) == b""  # type: ignore[attr-defined]

    def _send(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_faults_of_the_engine_are_told_and_leaving_reaches_it(
    tmp_path: Path, sqlite_template: Path, valkey_url: str, net: GPT
) -> None:
    engine = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    engine.models = ["some", "other"]  # type: ignore[attr-defined]
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    service = front(tmp_path, sqlite_template, valkey_url, net, f"http://127.0.0.1:{engine.server_port}/v1/")
    try:
        body = {"model": MODEL_ID, "prompt": "a"}
        lost = service.client.post("/v1/completions", json={**body, "max_tokens": 1})
        assert lost.status_code == 500 and "but some, other" in lost.json()["error"]["message"]
        engine.models = ["some"]  # type: ignore[attr-defined]
        full = service.client.post("/v1/completions", json={**body, "max_tokens": 1})
        assert full.status_code == 503 and "no room here" in full.text and full.headers["retry-after"]
        gone = service.client.post("/v1/completions", json={**body, "max_tokens": 2})
        assert gone.status_code == 503 and gone.json()["error"]["code"] == "engine_died"
        streamed = {**body, "max_tokens": 9, "stream": True}
        with httpx.stream("POST", f"{service.base_url}/v1/completions", json=streamed) as answer:
            assert "hello" in next(answer.iter_lines())
        assert eventually(lambda: getattr(engine, "left", False))
    finally:
        service.stop()
        engine.shutdown()
        engine.server_close()


def test_an_engine_that_is_not_there_is_named(
    tmp_path: Path, sqlite_template: Path, valkey_url: str, net: GPT
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        service = front(tmp_path, sqlite_template, valkey_url, net, f"http://127.0.0.1:{port}")
        try:
            answer = service.client.post("/v1/completions", json={"model": MODEL_ID, "prompt": "a"})
            assert (
                answer.status_code == 500 and "no answer from 127.0.0.1" in answer.json()["error"]["message"]
            )
        finally:
            service.stop()
