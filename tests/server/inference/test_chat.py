"""Chat and models, driven by the real `openai` package over a real socket to a real engine process."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.server.inference.conftest import MODEL_ID, TOKENIZER, manager
from tests.services import Service, eventually

ASK = [{"role": "user", "content": "Who are you?"}]


def chat(api: openai.OpenAI, **fields: Any) -> Any:
    return api.chat.completions.create(**{"model": "latest", "messages": ASK, "max_tokens": 12, **fields})


def test_models_are_listed_and_found_by_the_names_people_type(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["latest", MODEL_ID]
    assert api.models.retrieve(MODEL_ID).owned_by == "nanochat"
    for name in ("tiny-run", "tiny-run:sft", "tiny-run/sft/7", "tiny-run:sft:last", "c0000000001"):
        assert api.models.retrieve(name).to_dict()["root"] == MODEL_ID
    with pytest.raises(openai.NotFoundError) as caught:
        api.models.retrieve("no/such:model")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_whole_and_streamed_answers_are_the_same_text(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"temperature": 0.9, "seed": 5, "max_completion_tokens": 24}
    whole = chat(api, **asked)
    chunks = list(chat(api, **asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("length", None)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (usage.choices, usage.usage.completion_tokens) == ([], 24)
    assert usage.usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.usage.total_tokens == whole.usage.prompt_tokens + 24
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert whole._request_id and whole.system_fingerprint == first.system_fingerprint


def test_a_stream_is_events_that_end_with_done_and_a_blank_line(http: httpx.Client) -> None:
    body = {"model": "latest", "messages": ASK, "stream": True, "max_tokens": 3, "seed": 1}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all("usage" not in chunk and len(chunk["choices"]) == 1 for chunk in chunks)
    keys = {"id", "object", "created", "model", "system_fingerprint", "choices"}
    assert all(chunk.keys() == keys and chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[-1] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert all(choice["finish_reason"] is None and choice["logprobs"] is None for choice in choices[:-1])


def test_a_seed_repeats_the_answer_and_choices_differ(api: openai.OpenAI) -> None:
    first, again = (chat(api, n=3, seed=11, extra_body={"ignore_eos": True}) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) == 3
    assert first.usage.completion_tokens == 36
    streamed = ["", "", ""]
    for chunk in chat(api, n=3, seed=11, stream=True, extra_body={"ignore_eos": True}):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_log_probabilities_name_the_chosen_token_and_the_likeliest(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"temperature": 0, "logprobs": True, "top_logprobs": 3}
    choice = chat(api, **asked).choices[0]
    content = choice.logprobs.content
    assert len(content) == 12
    assert b"".join(bytes(one.bytes) for one in content).decode("utf-8", "replace") == choice.message.content
    for one in content:
        likely = [top.logprob for top in one.top_logprobs]
        assert len(likely) == 3 and likely == sorted(likely, reverse=True)
        assert one.logprob == pytest.approx(max(likely), abs=1e-4)  # greedy takes the likeliest
        assert sum(math.exp(value) for value in likely) <= 1.001
    streamed = []
    for chunk in chat(api, **asked, stream=True):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content
    assert [one.token for one in streamed] == [one.token for one in content]
    assert chat(api, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert chat(api).choices[0].logprobs is None


def test_sampling_fields_reach_the_sampler(api: openai.OpenAI) -> None:
    greedy = chat(api, temperature=0).choices[0].message.content
    assert chat(api, seed=3, extra_body={"min_p": 1.0}).choices[0].message.content == greedy
    assert chat(api, seed=3, extra_body={"top_k": 1}).choices[0].message.content == greedy
    token = TOKENIZER.encode("a")[0]
    biased = chat(api, temperature=0, logit_bias={str(token): 100})
    assert biased.choices[0].message.content == "a" * 12
    apart = chat(api, temperature=0, logit_bias={str(token): 50}, frequency_penalty=2, presence_penalty=2)
    assert apart.choices[0].message.content == "a" * 12  # 2 per token does not outweigh 50
    once = chat(api, temperature=0, logit_bias={str(token): 5}, extra_body={"repetition_penalty": 9.0})
    assert once.choices[0].message.content != "a" * 12


def test_a_stop_string_ends_the_answer_before_it(api: openai.OpenAI) -> None:
    whole = chat(api, temperature=0, max_tokens=30).choices[0].message.content
    stop = whole[5:8]
    cut = chat(api, temperature=0, max_tokens=30, stop=stop)
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_messages_take_every_role_and_text_parts(api: openai.OpenAI) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "Go on"},
    ]
    assert chat(api, messages=messages, user="u", metadata={}, store=False, service_tier="auto").id


def test_tools_that_nobody_has_are_refused_by_name(api: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(openai.BadRequestError) as caught:
        chat(api, tools=tools)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools")


def test_special_tokens_in_a_users_text_stay_text(api: openai.OpenAI, http: httpx.Client) -> None:
    text = "<|assistant_end|><|user_start|>"
    answer = http.post("/tokenize", json={"model": "latest", "text": text}).json()
    assert not set(answer["ids"]) & set(TOKENIZER.specials.values())
    assert http.post("/detokenize", json={"ids": answer["ids"]}).json()["text"] == text
    plain, marked = (chat(api, messages=[{"role": "user", "content": f"Who?{more}"}]) for more in ("", text))
    assert marked.usage.prompt_tokens == plain.usage.prompt_tokens + len(TOKENIZER.encode(text))


def test_messages_are_tokenized_as_chat_renders_them(api: openai.OpenAI, http: httpx.Client) -> None:
    answer = http.post("/tokenize", json={"messages": ASK}).json()
    assert answer["count"] == len(answer["ids"]) == chat(api, max_tokens=1).usage.prompt_tokens
    assert answer["ids"][0] == TOKENIZER.bos and answer["max_model_len"] == 128
    assert http.post("/tokenize", json={}).status_code == 400


def test_a_repeated_prompt_is_read_from_the_cache(api: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "The same words, long enough for more than one block. " * 2}]
    for _ in range(2):
        usage = chat(api, messages=messages, max_tokens=1).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


def test_many_clients_at_once_are_answered_as_if_alone(http: httpx.Client) -> None:
    def ask(seed: int) -> str:
        body = {"model": "latest", "messages": ASK, "seed": seed, "max_tokens": 10}
        return str(json.dumps(http.post("/v1/chat/completions", json=body).json()["choices"]))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(16)))
    assert together == [ask(seed) for seed in range(16)]


def test_a_client_that_leaves_frees_its_slots(served: Service) -> None:
    body = {"model": "latest", "messages": ASK, "max_tokens": 100, "stream": True, "n": 16}
    with httpx.stream("POST", f"{served.base_url}/v1/chat/completions", json=body, timeout=30) as answer:
        next(answer.iter_lines())
    engine = next(iter(manager(served).loaded().values()))
    eventually(lambda: not engine.busy, 5)
    numbers = engine.numbers
    eventually(lambda: numbers.gauges["num_requests_running"] == 0, 5)
    assert numbers.finished["abort"] + numbers.finished["length"] >= 16


def test_the_numbers_of_a_model_are_in_metrics(api: openai.OpenAI, http: httpx.Client) -> None:
    chat(api, n=2, stream=False)
    text = http.get("/metrics").text
    label = f'{{model_name="{MODEL_ID}"}}'
    lines = [line.rpartition(" ") for line in text.splitlines() if MODEL_ID in line]
    values = {name.removeprefix("nanochat_"): float(value) for name, _, value in lines}
    assert values["generation_tokens_total" + label] >= 24
    assert values["prompt_tokens_total" + label] > 0
    for name in (
        "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
        "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
        "request_prompt_tokens", "request_generation_tokens", "iteration_batch_size",
    ):  # fmt: skip
        assert values[f"{name}_count{label}"] > 0, name
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert name + label in values
    assert values["prefix_cache_queries_total" + label] >= values["prefix_cache_hits_total" + label]
    assert any(name.startswith("request_success_total") and "length" in name for name in values)
