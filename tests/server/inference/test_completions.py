"""Plain completions: text and ids, batches, echo, log-probabilities, as lm-evaluation-harness uses them."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.server.inference.conftest import TOKENIZER


def complete(api: openai.OpenAI, prompt: Any, **fields: Any) -> Any:
    asked = {"model": "latest", "prompt": prompt, "temperature": 0, "max_tokens": 6, **fields}
    return api.completions.create(**asked)


def ids_of(text: str) -> list[int]:
    return [TOKENIZER.bos, *TOKENIZER.encode(text)]


def test_prompts_may_be_text_ids_or_lists_of_them(api: openai.OpenAI) -> None:
    ids = ids_of("The class")
    text, tokens = (complete(api, prompt).choices[0].text for prompt in ("The class", ids))
    assert text == tokens
    both = complete(api, ["The class", "def"])
    assert [choice.index for choice in both.choices] == [0, 1] and both.choices[0].text == text
    assert complete(api, [ids, ids]).choices[1].text == text
    assert (both.object, both.choices[0].finish_reason) == ("text_completion", "length")


def test_a_batch_counts_every_prompt_once_and_every_answer(api: openai.OpenAI) -> None:
    prompts = ["The class", "def", "A longer prompt than the others"]
    more = {"n": 2, "seed": 4, "temperature": 0.8, "extra_body": {"ignore_eos": True}}
    alone = [complete(api, prompt, **more) for prompt in prompts]
    batch = complete(api, prompts, **more)
    assert [choice.index for choice in batch.choices] == list(range(6))
    texts = [choice.text for answer in alone for choice in answer.choices]
    assert [choice.text for choice in batch.choices] == texts
    assert batch.usage.prompt_tokens == sum(len(ids_of(prompt)) for prompt in prompts)
    assert batch.usage.completion_tokens == 36


def test_a_streamed_batch_is_the_same_texts(api: openai.OpenAI) -> None:
    whole = complete(api, ["The class", "def"])
    texts = ["", ""]
    reasons: list[str | None] = [None, None]
    for chunk in complete(api, ["The class", "def"], stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == ["length", "length"]


def test_echo_puts_the_prompt_first_in_both_ways_of_answering(api: openai.OpenAI) -> None:
    plain = complete(api, "The class").choices[0].text
    assert complete(api, "The class", echo=True).choices[0].text == "The class" + plain
    streamed = "".join(c.choices[0].text for c in complete(api, "The class", echo=True, stream=True))
    assert streamed == "The class" + plain


def test_a_prompt_is_scored_without_generating(api: openai.OpenAI) -> None:
    ids = ids_of("The class of")
    answer = complete(api, ids, echo=True, logprobs=1, max_tokens=0)
    scored = answer.choices[0].logprobs
    assert answer.usage.completion_tokens == 0
    assert len(scored.tokens) == len(scored.token_logprobs) == len(scored.text_offset) == len(ids)
    assert scored.token_logprobs[0] is None and scored.top_logprobs[0] is None
    assert all(value < 0 for value in scored.token_logprobs[1:])
    for token, value, top in list(
        zip(scored.tokens, scored.token_logprobs, scored.top_logprobs, strict=True)
    )[1:]:
        assert top[token] == pytest.approx(value, abs=1e-4) and max(top.values()) >= value - 1e-4
    with pytest.raises(openai.BadRequestError) as caught:
        complete(api, ids, max_tokens=0)
    assert caught.value.param == "max_tokens"


def test_what_was_generated_scores_the_same_as_a_prompt(api: openai.OpenAI) -> None:
    ids = ids_of("The class")
    said = complete(api, ids, logprobs=0, max_tokens=5).choices[0]
    assert said.logprobs.top_logprobs is None
    # texts of tokens may not be text by themselves, so the ids of the whole are asked for as a chat would
    whole = complete(api, ids, logprobs=2, echo=True, max_tokens=5).choices[0]
    assert whole.logprobs.token_logprobs[-5:] == pytest.approx(said.logprobs.token_logprobs, abs=1e-3)
    assert whole.logprobs.tokens[-5:] == said.logprobs.tokens
    assert len(whole.logprobs.tokens) == len(ids) + 5


def test_offsets_point_at_the_tokens_in_the_text(api: openai.OpenAI) -> None:
    choice = complete(api, "The class", echo=True, logprobs=0).choices[0]
    pairs = list(zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True))
    plain = [(token, offset) for token, offset in pairs if not token.startswith("bytes:")]
    assert plain and all(choice.text[offset:].startswith(token) for token, offset in plain)
    chunks = [c.choices[0] for c in complete(api, "The class", echo=True, logprobs=0, stream=True)]
    told = [chunk.logprobs for chunk in chunks if chunk.logprobs is not None]
    assert [offset for one in told for offset in one.text_offset] == choice.logprobs.text_offset


def test_a_stop_string_cuts_the_text_before_it(api: openai.OpenAI) -> None:
    whole = complete(api, "def", max_tokens=30).choices[0].text
    stop = whole[5:8]
    cut = complete(api, "def", max_tokens=30, stop=[stop]).choices[0]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"
    stream = complete(api, "def", max_tokens=30, stop=[stop], stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == cut.text


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": ["a"] * 300}, "prompt"),
        ({"prompt": ["a"] * 10, "n": 64}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
    ],
)
def test_a_wrong_completion_is_told_which_parameter(
    http: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    answer = http.post("/v1/completions", json={"model": "latest", "prompt": "a", "max_tokens": 1, **changes})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_one_prompt_too_long_refuses_the_batch_before_anything_is_streamed(http: httpx.Client) -> None:
    body = {"model": "latest", "prompt": ["short", "word " * 500], "max_tokens": 5, "stream": True}
    answer = http.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
