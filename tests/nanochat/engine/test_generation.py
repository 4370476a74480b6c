"""The engine says what the model says, alone or among others; and its tool is only arithmetic."""

from __future__ import annotations

import pydoc_data.topics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine import Engine, Request, generate_batch
from nanochat.engine.calculator import calculate
from nanochat.engine.detokenize import TextStream
from nanochat.engine.sampling import Sampling, choose, uniform
from nanochat.engine.scheduler import Scheduler
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer
from tests.nanochat.test_gpt import hf_state

TOKENIZER = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 400)
CONTEXT = 64


def tiny_model(kv_heads: int = 2, modern: bool = False) -> GPT:
    model = GPT(
        GPTConfig(
            sequence_len=CONTEXT,
            vocab_size=TOKENIZER.vocab_size,
            n_layer=2,
            n_head=2,
            n_kv_head=kv_heads,
            n_embd=64,
            residual_scalars=modern,
            value_embeddings=modern,
        )
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.15, generator=generator)
    return model.eval()


MODEL = tiny_model()
PROMPTS = [
    [TOKENIZER.bos, *TOKENIZER.encode(text)] for text in ("def", "The class", "a", "Where is the name of")
]


def without_specials(model: GPT) -> GPT:
    """The same model with special tokens too unlikely to be said, so that nothing ends early."""
    copy = tiny_model(model.cfg.n_kv_head, model.cfg.value_embeddings)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        first = copy.lm_head.weight[: TOKENIZER.specials["<|bos|>"]]
        copy.lm_head.weight[len(first) :] = 0
    return copy


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


@pytest.mark.parametrize(("kv_heads", "modern"), [(2, False), (1, False), (1, True)])
def test_the_cache_changes_no_token(kv_heads: int, modern: bool) -> None:
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


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6),
    slots=st.integers(1, 4),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_a_request_gets_the_same_tokens_alone_and_among_others(
    texts: list[str], slots: int, temperature: float, seed: int
) -> None:
    prompts = [[TOKENIZER.bos, *TOKENIZER.encode(text)][:40] for text in texts]
    requests = [
        Request(str(i), prompt, 8, Sampling(temperature, seed=seed + i)) for i, prompt in enumerate(prompts)
    ]
    together: dict[str, list[int]] = {name: [] for name in ("cancelled", *(r.id for r in requests))}

    def collect(engine: Engine) -> None:
        for output in engine.step():
            if output.token is not None:
                together[output.id].append(output.token)

    engine = Engine(MODEL, TOKENIZER, slots)
    engine.add(Request("cancelled", prompts[0], 20))
    collect(engine)
    for request in requests:
        engine.add(request)
    collect(engine)
    engine.abort("cancelled")
    while engine.busy:
        collect(engine)
    for request in requests:
        engine = Engine(MODEL, TOKENIZER, 1)
        engine.add(request)
        alone = []
        while engine.busy:
            alone += [output.token for output in engine.step() if output.token is not None]
        assert alone == together[request.id]


def test_an_aborted_request_frees_its_slot_at_once() -> None:
    engine = Engine(MODEL, TOKENIZER, 1)
    engine.add(Request("first", PROMPTS[0], 30))
    engine.add(Request("second", PROMPTS[1], 3))
    engine.step()
    engine.abort("first")
    assert {output.id for output in engine.step()} == {"second"}
    engine.abort("second")
    assert not engine.busy


def test_a_prompt_that_fills_the_context_is_refused_and_a_long_answer_ends_with_it() -> None:
    engine = Engine(without_specials(MODEL), TOKENIZER, 1)
    with pytest.raises(ValueError, match="does not fit"):
        engine.add(Request("long", [1] * CONTEXT, 1))
    engine.add(Request("ok", [1] * (CONTEXT - 3), 100))
    outputs = []
    while engine.busy:
        outputs += engine.step()
    assert (outputs[-1].finish, len(outputs)) == ("length", 4)


def test_the_calculator_answers_inside_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    start, end = TOKENIZER.special("<|python_start|>"), TOKENIZER.special("<|python_end|>")
    says = [start, *TOKENIZER.encode("12+30"), end]
    script = iter([*says, *TOKENIZER.encode("ok"), TOKENIZER.special("<|assistant_end|>")])
    monkeypatch.setattr("nanochat.engine.engine.choose", lambda *_: next(script))
    engine = Engine(MODEL, TOKENIZER, 1)
    engine.add(Request("r", PROMPTS[0], 40))
    outputs = []
    while engine.busy:
        outputs += engine.step()
    said = [output.token for output in outputs if output.token is not None]
    assert TOKENIZER.decode(said) == "<|python_start|>12+30<|python_end|><|output_start|>42<|output_end|>ok"
    spoken = [output.token for output in outputs if output.token is not None and not output.tool]
    assert TOKENIZER.decode(spoken) == "ok"
    assert outputs[-1].finish == "stop"


def test_an_end_inside_a_tool_call_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    script = iter([TOKENIZER.special("<|python_start|>"), 49, TOKENIZER.special("<|assistant_end|>")])
    monkeypatch.setattr("nanochat.engine.engine.choose", lambda *_: next(script))
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


# ---------------------------------------------------------------- sampling


def test_sampling_follows_the_probabilities() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    counts = torch.zeros(4)
    for position in range(4000):
        counts[choose(logits, Sampling(1.0, seed=3), position)] += 1
    assert torch.allclose(counts / 4000, logits.exp(), atol=0.03)


def test_top_k_and_top_p_keep_only_the_likeliest() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    assert {choose(logits, Sampling(1.0, top_k=2), i) for i in range(200)} == {2, 3}
    assert {choose(logits, Sampling(1.0, top_p=0.39), i) for i in range(200)} == {3}
    assert {choose(logits, Sampling(1.0, top_p=0.65), i) for i in range(200)} == {2, 3}
    assert {choose(logits, Sampling(0.0), i) for i in range(5)} == {3}


@given(st.integers(0, 2**63), st.integers(0, 10_000))
def test_a_random_number_depends_on_seed_and_position_alone(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1
    assert uniform(seed, position) == uniform(seed, position) != uniform(seed, position + 1)


# ---------------------------------------------------------------- calculator


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12+7", "19"), ("1,000 * 3", "3000"), ("7/2", "3.5"), ("8/2", "4"), ("-(3-5)", "2"), ("7//2", "3"),
        ("0.1+0.2", "0.3"),
    ],
)  # fmt: skip
def test_the_calculator_knows_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", "1/0", "2**9**9", "__import__('os')", "open('x')", "'a'*9", "[1][0]", "x", "1 if 1 else 2",
        "(lambda: 1)()", "True+1", "9" * 300, "1e400", "-" * 90 + "1", "1;2", "10**20",
        "999999999999999*9", "nan", "\0", "1j",
    ],
)  # fmt: skip
def test_the_calculator_knows_nothing_else(expression: str) -> None:
    assert calculate(expression) is None


@given(st.text(max_size=60))
def test_no_expression_makes_the_calculator_raise(expression: str) -> None:
    assert calculate(expression) is None or isinstance(calculate(expression), str)


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


# ---------------------------------------------------------------- scheduler


def test_slots_are_given_in_order_of_arrival() -> None:
    scheduler: Scheduler[str] = Scheduler(2)
    for name in "abcd":
        scheduler.add(name, name.upper())
    assert [sequence for _, sequence in scheduler.admit()] == ["A", "B"]
    assert scheduler.abort("c") == 1
    scheduler.release(next(iter(scheduler.running)))
    assert [sequence for _, sequence in scheduler.admit()] == ["D"]
    assert (scheduler.waiting, scheduler.busy) == (0, True)
