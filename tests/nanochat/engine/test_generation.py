"""The engine says what the model says, alone or among others; and its tool is only arithmetic."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine import Engine, Request, generate_batch
from nanochat.engine.detokenize import TextStream
from nanochat.engine.native import NativeRunner
from nanochat.engine.sampling import Sampler, Sampling
from nanochat.gpt import GPT
from tests.nanochat.engine.tiny import (
    CONTEXT,
    MODEL,
    PROMPTS,
    TOKENIZER,
    engine,
    run,
    tiny_model,
    tokens_of,
    without_specials,
)
from tests.nanochat.test_gpt import hf_state


def recomputed(model: GPT, prompt: list[int], count: int) -> list[int]:
    """Greedy generation without any cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor([ids]))[0, -1]
            for name in (
                "<|user_start|>",
                "<|user_end|>",
                "<|assistant_start|>",
                "<|output_start|>",
                "<|output_end|>",
            ):
                logits[TOKENIZER.special(name)] = float("-inf")
            token = int(logits.argmax())
            if token in (TOKENIZER.bos, TOKENIZER.special("<|assistant_end|>")):
                break
            ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("kv_heads", "modern"), [(2, False), (1, False), (1, True)])
def test_the_cache_changes_no_token(
    kv_heads: int, modern: bool, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.engine.make.WORTH_PACKING", 0 if packed else 10**6)
    model = without_specials(tiny_model(kv_heads, modern))
    answers = generate_batch(model, TOKENIZER, PROMPTS, max_new_tokens=30)
    assert answers == [recomputed(model, prompt, 30) for prompt in PROMPTS]
    assert all(len(answer) == 30 for answer in answers)


def test_greedy_tokens_are_those_of_transformers() -> None:
    from transformers import NanoChatConfig, NanoChatForCausalLM

    model = without_specials(MODEL)
    cfg = model.cfg
    reference = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=cfg.vocab_size,
            hidden_size=cfg.n_embd,
            intermediate_size=4 * cfg.n_embd,
            num_hidden_layers=cfg.n_layer,
            num_attention_heads=cfg.n_head,
            num_key_value_heads=cfg.n_kv_head,
            max_position_embeddings=cfg.sequence_len,
            rms_norm_eps=1.1920928955078125e-07,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            final_logit_softcapping=15.0,
            tie_word_embeddings=False,
            eos_token_id=None,
            pad_token_id=TOKENIZER.bos,
        )
    ).eval()
    reference.load_state_dict(hf_state(model))
    ours = generate_batch(model, TOKENIZER, PROMPTS, max_new_tokens=24)
    for prompt, answer in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)  # else the first token counts as padding
        theirs = reference.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
        assert theirs[0, len(prompt) :].tolist() == answer


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=6),
    lanes=st.integers(1, 4),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**31),
    precision=st.sampled_from(["float32", "bfloat16", "int8"]),
    rows=st.integers(5, 40),
    blocks=st.integers(4, 12),
)
def test_a_request_gets_the_same_tokens_alone_and_among_others(
    texts: list[str], lanes: int, temperature: float, seed: int, precision: str, rows: int, blocks: int
) -> None:
    """In pieces of any size, behind cached prefixes, with blocks so few that some are computed twice."""
    start = TOKENIZER.encode("All begin with the same words, which are computed once.")[:18]
    prompts = [[TOKENIZER.bos, *start, *TOKENIZER.encode(text)][:44] for text in texts]
    requests = [
        Request(str(i), prompt, 12, Sampling(temperature, seed=seed + i)) for i, prompt in enumerate(prompts)
    ]

    def fresh(lanes: int, rows: int, blocks: int) -> Engine:
        return Engine(
            NativeRunner(MODEL, precision=precision, blocks=blocks, max_rows=rows),  # type: ignore[arg-type]
            TOKENIZER,
            lanes,
        )

    busy = fresh(lanes, rows, blocks)
    busy.add(Request("cancelled", prompts[0], 20))
    outputs = busy.step()
    for request in requests:
        busy.add(request)
    outputs += busy.step()
    busy.abort("cancelled")
    outputs += run(busy)
    assert busy.blocks.used == 0
    for request in requests:
        alone = run(fresh(1, 64, 4), request)
        assert tokens_of(alone, request.id) == tokens_of(outputs, request.id)
        assert alone[-1].finish is not None


def test_an_aborted_request_frees_its_lane_at_once() -> None:
    one = engine(1)
    one.add(Request("first", PROMPTS[0], 30))
    one.add(Request("second", PROMPTS[1], 3))
    one.step()
    one.abort("first")
    assert {output.id for output in one.step()} == {"second"}
    one.abort("second")
    assert not one.busy and one.blocks.used == 0


def test_a_thousand_requests_with_random_cancels_leave_no_block_behind() -> None:
    chance = random.Random(5)
    many = Engine(NativeRunner(MODEL, precision="bfloat16", blocks=14, max_rows=24), TOKENIZER, 8)
    for number in range(1000):
        prompt = [TOKENIZER.bos] * 17 + [chance.randrange(256) for _ in range(chance.randrange(30))]
        choices = [
            Request(str(number), prompt, chance.randrange(1, 12), Sampling(seed=number), index)
            for index in range(chance.randrange(1, 3))
        ]
        many.add(*choices)
        for _ in range(chance.randrange(3)):
            many.step()
        if chance.random() < 0.4:
            many.abort(str(chance.randrange(max(0, number - 10), number + 1)))
    run(many)
    assert (many.blocks.used, many.scheduler.running, many.scheduler.waiting) == (0, [], 0)
    assert many.scheduler.preemptions > 0 and many.scheduler.prefix_hits > 0


def test_a_prompt_that_fills_the_context_is_refused_and_a_long_answer_ends_with_it() -> None:
    one = engine(1, without_specials(MODEL))
    with pytest.raises(ValueError, match="does not fit"):
        one.add(Request("long", [1] * CONTEXT, 1))
    outputs = run(one, Request("ok", [1] * (CONTEXT - 3), 100))
    assert (outputs[-1].finish, len(outputs)) == ("length", 4)


def test_the_second_request_computes_only_what_is_new() -> None:
    one = engine(2)
    prompt = [TOKENIZER.bos, *range(40)]
    first = run(one, Request("first", prompt, 1))
    second = run(one, Request("second", [*prompt, 50], 1))
    other = run(one, Request("other", [*prompt, 50], 1, salt="another key"))
    cached = [said[-1].usage.cached_tokens for said in (first, second, other) if said[-1].usage]
    assert cached == [0, 32, 0]


def test_several_choices_of_one_prompt_are_its_separate_answers() -> None:
    prompt = [TOKENIZER.bos, *range(40)]
    choices = [Request("r", prompt, 6, Sampling(1.0, seed=index), index) for index in range(3)]
    one = engine(4)
    one.add(*choices)
    outputs = run(one)
    assert one.rows < 2 * len(prompt)
    for choice in choices:
        alone = run(engine(1), dataclasses.replace(choice, id="alone"))
        assert tokens_of(outputs, "r", choice.index) == tokens_of(alone, "alone", choice.index)


# ---------------------------------------------------------------- log-probabilities


def test_log_probabilities_are_the_models_before_temperature() -> None:
    outputs = run(engine(), Request("r", PROMPTS[1], 8, Sampling(0.7, seed=3), logprobs=3, echo=True))
    said = tokens_of(outputs, "r")
    ids = [*PROMPTS[1], *said]
    with torch.no_grad():
        expected = MODEL(torch.tensor([ids]))[0].log_softmax(1)
    told = [*outputs[0].echo, *(output.logprob for output in outputs if output.logprob)]
    assert [one.token for one in told] == ids and told[0].logprob is None
    for position, one in enumerate(told[1:]):
        assert one.logprob == pytest.approx(float(expected[position, one.token]), abs=1e-4)
        best = expected[position].topk(3)
        assert [token for token, _ in one.top] == best.indices.tolist()
        assert [value for _, value in one.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_prompt_alone_is_scored_without_a_new_token() -> None:
    full = [TOKENIZER.bos, *([5] * (CONTEXT - 1))]
    outputs = run(engine(), Request("r", full, 0, logprobs=0, echo=True))
    assert [len(output.echo) for output in outputs] == [CONTEXT, 0]
    assert (outputs[1].finish, tokens_of(outputs, "r")) == ("length", [])


# ---------------------------------------------------------------- tool


def scripted(monkeypatch: pytest.MonkeyPatch, tokens: list[int]) -> None:
    script = iter(tokens)
    monkeypatch.setattr(Sampler, "__call__", lambda *_: [next(script)])


def test_the_calculator_answers_inside_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    start, end = TOKENIZER.special("<|python_start|>"), TOKENIZER.special("<|python_end|>")
    says = [start, *TOKENIZER.encode("12+30"), end]
    scripted(monkeypatch, [*says, *TOKENIZER.encode("ok"), TOKENIZER.special("<|assistant_end|>")])
    outputs = run(engine(1), Request("r", PROMPTS[0], 40))
    said = "<|python_start|>12+30<|python_end|><|output_start|>42<|output_end|>ok"
    assert TOKENIZER.decode(tokens_of(outputs, "r")) == said
    spoken = [output.token for output in outputs if output.token is not None and not output.tool]
    assert TOKENIZER.decode(spoken) == "ok"
    assert outputs[-1].finish == "stop"


def test_a_tools_answer_ends_where_the_tokens_do(monkeypatch: pytest.MonkeyPatch) -> None:
    start, end = TOKENIZER.special("<|python_start|>"), TOKENIZER.special("<|python_end|>")
    says = [start, *TOKENIZER.encode("12+30"), end]
    scripted(monkeypatch, says)
    outputs = run(engine(1), Request("r", PROMPTS[0], len(says) + 1))
    assert tokens_of(outputs, "r") == [*says, TOKENIZER.special("<|output_start|>")]
    assert outputs[-1].finish == "length"


def test_an_end_inside_a_tool_call_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [TOKENIZER.special("<|python_start|>"), 49, TOKENIZER.special("<|assistant_end|>")])
    (answer,) = generate_batch(MODEL, TOKENIZER, PROMPTS[:1], max_new_tokens=20)
    assert answer == [TOKENIZER.special("<|python_start|>"), 49]


def test_tokens_that_are_not_the_assistants_are_never_said() -> None:
    model = tiny_model()
    with torch.no_grad():  # as likely as can be
        model.lm_head.weight[TOKENIZER.special("<|user_start|>")] = model.lm_head.weight.abs().max() * 10
    answers = generate_batch(model, TOKENIZER, PROMPTS * 3, max_new_tokens=20, temperature=2.0, seed=1)
    forbidden = {
        TOKENIZER.special(name) for name in ("<|user_start|>", "<|user_end|>", "<|assistant_start|>")
    }
    assert not forbidden & {token for answer in answers for token in answer}


def test_the_same_seed_says_the_same_and_another_says_something_else() -> None:
    first, again, other = (
        generate_batch(MODEL, TOKENIZER, PROMPTS, max_new_tokens=20, temperature=1.0, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again != other


# ---------------------------------------------------------------- text


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_text_in_pieces_is_the_text_in_one(text: str, stops: list[str]) -> None:
    text = text.encode("utf-8", "replace").decode()
    stream = TextStream(TOKENIZER, stops)
    pieces = []
    for token in TOKENIZER.encode(text):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.end())
    cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
    said = "".join(pieces)
    if cuts:
        assert said == text[: min(cuts)] or any(said == text[:at] for at in cuts)
    else:
        assert said == text


def test_a_character_split_over_tokens_is_held_back_until_it_is_whole() -> None:
    stream = TextStream(TOKENIZER)
    pieces = [stream.push(token) for token in "日".encode()]  # the first 256 tokens are the bytes
    assert pieces == ["", "", "日"]


def test_bytes_that_are_no_text_become_a_replacement_at_the_end_only() -> None:
    stream = TextStream(TOKENIZER)
    assert stream.push("日".encode()[0]) == ""
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"
