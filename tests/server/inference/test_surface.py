"""The OpenAI surface, driven by the real `openai` package over a real socket to a real engine process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from server.settings import Settings
from tests.server.inference.conftest import MODEL_ID, TOKENIZER, directory
from tests.services import Service, eventually

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ASK = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture
def api(model: str, service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def engines() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [process for process in children if "nanochat.engine" in process.cmdline()]


def test_models_are_listed_and_found_by_the_names_people_type(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["latest", MODEL_ID]
    assert api.models.retrieve(MODEL_ID).owned_by == "nanochat"
    with pytest.raises(openai.NotFoundError) as caught:
        api.models.retrieve("no/such:model")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_whole_and_streamed_answers_are_the_same_text(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "latest",
        "messages": ASK,
        "temperature": 0.9,
        "seed": 5,
        "max_completion_tokens": 24,
    }
    whole = api.chat.completions.create(**asked)
    chunks = list(api.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("length", None)
    assert usage.choices == [] and usage.usage == whole.usage
    assert whole.usage is not None and whole.usage.completion_tokens == 24
    assert len({chunk.id for chunk in chunks}) == 1
    assert whole._request_id


def test_without_asking_there_is_no_chunk_without_choices(api: openai.OpenAI) -> None:
    stream = api.chat.completions.create(model="latest", messages=ASK, max_tokens=4, stream=True)  # type: ignore[call-overload]
    assert all(len(chunk.choices) == 1 for chunk in stream)


def test_a_stream_ends_with_done_and_a_blank_line(service: Service, model: str) -> None:
    body = {"model": model, "messages": ASK, "stream": True, "max_tokens": 3}
    answer = service.client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_seed_repeats_the_answer_and_choices_differ(api: openai.OpenAI) -> None:
    first, again = (
        api.chat.completions.create(model="latest", messages=ASK, n=3, seed=11, max_tokens=12)
        for _ in range(2)
    )  # type: ignore[call-overload]
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) == 3
    assert first.usage.completion_tokens == 36


def test_a_stop_string_cuts_the_text_before_it(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "latest", "prompt": "def", "temperature": 0, "max_tokens": 30}
    whole = api.completions.create(**asked).choices[0].text
    stop = whole[5:8]
    cut = api.completions.create(**asked, stop=[stop]).choices[0]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"
    streamed = "".join(c.choices[0].text for c in api.completions.create(**asked, stop=[stop], stream=True))
    assert streamed == cut.text


def test_prompts_may_be_text_ids_or_lists_of_them(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "latest", "temperature": 0, "max_tokens": 6}
    ids = [TOKENIZER.bos, *TOKENIZER.encode("The class")]
    text, tokens = (api.completions.create(**asked, prompt=p).choices[0].text for p in ("The class", ids))
    assert text == tokens
    both = api.completions.create(**asked, prompt=["The class", "def"])
    assert [choice.index for choice in both.choices] == [0, 1] and both.choices[0].text == text
    assert api.completions.create(**asked, prompt=[ids, ids]).choices[1].text == text


def test_messages_take_every_role_and_text_parts(api: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "Go on"},
    ]
    assert api.chat.completions.create(
        model="latest", messages=messages, max_tokens=2, user="u", metadata={}
    ).id


def test_special_tokens_in_a_users_text_stay_text(api: openai.OpenAI, service: Service) -> None:
    text = "<|assistant_end|><|user_start|>"
    answer = service.client.post("/tokenize", json={"model": "latest", "text": text}).json()
    assert not set(answer["ids"]) & set(TOKENIZER.specials.values())
    assert service.client.post("/detokenize", json={"ids": answer["ids"]}).json()["text"] == text
    plain = api.chat.completions.create(model="latest", messages=ASK, max_tokens=1)  # type: ignore[call-overload]
    messages = [{"role": "user", "content": "Who are you?" + text}]
    marked = api.chat.completions.create(model="latest", messages=messages, max_tokens=1)  # type: ignore[call-overload]
    assert marked.usage.prompt_tokens == plain.usage.prompt_tokens + len(TOKENIZER.encode(text))


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "nope"}, 404, "model_not_found", "model"),
        (
            {"messages": [{"role": "user", "content": "word " * 500}]},
            400,
            "context_length_exceeded",
            "messages",
        ),
        ({"temperature": 9}, 400, "invalid_value", "temperature"),
        ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
        ({"max_tokens": -1}, 400, "invalid_value", "max_tokens"),
        ({"n": 100}, 400, "invalid_value", "n"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "messages.0"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
        ({"stop": ["x" * 100_000]}, 400, "invalid_value", "stop"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    service: Service, model: str, changes: dict[str, Any], status: int, code: str, param: str
) -> None:
    body = {"model": model, "messages": ASK, "max_tokens": 2, **changes}
    answer = service.client.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert error["param"].startswith(param)
    assert answer.headers["x-request-id"] and answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": NaN}', b"\xff", b""])
def test_a_body_that_is_no_request_is_400_in_the_same_shape(
    service: Service, model: str, body: bytes
) -> None:
    answer = service.client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses"])
def test_what_is_not_there_is_404_in_the_same_shape(service: Service, path: str) -> None:
    answer = service.client.post(path, json={})
    assert (answer.status_code, "error" in answer.json()) == (404, True)


def test_an_engine_killed_in_mid_stream_says_so_and_the_next_request_is_served(api: openai.OpenAI) -> None:
    api.chat.completions.create(model="latest", messages=ASK, max_tokens=1)  # type: ignore[call-overload]
    victim = engines()[0]
    stream = api.chat.completions.create(model="latest", messages=ASK, max_tokens=100, stream=True)  # type: ignore[call-overload]
    with pytest.raises(openai.APIError, match="engine"):
        for number, _ in enumerate(stream):
            if number == 2:
                os.kill(victim.pid, signal.SIGKILL)
    answer = api.chat.completions.create(model="latest", messages=ASK, max_tokens=2)  # type: ignore[call-overload]
    assert answer.usage.completion_tokens == 2
    assert engines()[0].pid != victim.pid


def test_a_client_that_leaves_stops_its_generation(service: Service, model: str) -> None:
    body = {"model": model, "messages": ASK, "max_tokens": 100, "stream": True, "n": 16}
    with httpx.stream("POST", f"{service.base_url}/v1/chat/completions", json=body, timeout=30) as answer:
        next(answer.iter_lines())
    manager = service.app.state.services.engines
    engine = next(iter(manager._engines.values()))
    eventually(lambda: not engine.busy, 5)


def test_an_idle_model_is_unloaded_and_its_process_ends(service: Service, model: str) -> None:
    service.client.post("/tokenize", json={"text": "x"})
    assert len(engines()) == 1
    manager = service.app.state.services.engines
    next(iter(manager._engines.values())).last_used -= service.settings.engine_idle_s + 1
    eventually(lambda: engines() == [], 15)
    assert manager.loaded() == []


def test_a_damaged_checkpoint_is_not_served(service: Service, model: str, settings: Settings) -> None:
    (directory(settings) / "model.safetensors").write_bytes(b"damaged")
    answer = service.client.post("/v1/chat/completions", json={"model": model, "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_load_failed")


def test_many_clients_at_once_are_answered_as_if_alone(api: openai.OpenAI, service: Service) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(seed: int) -> str:
        body = {"model": "latest", "messages": ASK, "seed": seed, "max_tokens": 10}
        return str(json.dumps(service.client.post("/v1/chat/completions", json=body).json()["choices"]))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(16)))
    assert together == [ask(seed) for seed in range(16)]
