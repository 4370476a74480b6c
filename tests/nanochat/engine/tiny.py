"""A tokenizer and a model small enough to be run in any test, and an engine that collects what it says."""

from __future__ import annotations

import pydoc_data.topics

import torch

from nanochat.engine import Engine, Options, Output, Request, make_engine
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 400)
CONTEXT = 64


def tiny_model(kv_heads: int = 2, modern: bool = False, context: int = CONTEXT) -> GPT:
    model = GPT(
        GPTConfig(
            sequence_len=context,
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


def without_specials(model: GPT) -> GPT:
    """The same model with special tokens too unlikely to be said, so that nothing ends early."""
    cfg = model.cfg
    copy = tiny_model(cfg.n_kv_head, cfg.value_embeddings, cfg.sequence_len)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        first = copy.lm_head.weight[: TOKENIZER.specials["<|bos|>"]]
        copy.lm_head.weight[len(first) :] = 0
    return copy


MODEL = tiny_model()
PROMPTS = [
    [TOKENIZER.bos, *TOKENIZER.encode(text)] for text in ("def", "The class", "a", "Where is the name of")
]


def engine(lanes: int = 4, model: GPT = MODEL, **options: object) -> Engine:
    return make_engine(model, TOKENIZER, Options(lanes=lanes, threads=1, **options))  # type: ignore[arg-type]


def run(engine: Engine, *requests: Request) -> list[Output]:
    """All that an engine says to `requests` and whatever else it has to do."""
    for request in requests:
        engine.add(request)
    outputs: list[Output] = []
    while engine.busy:
        outputs += engine.step()
    return outputs


def tokens_of(outputs: list[Output], request_id: str, index: int = 0) -> list[int]:
    return [
        output.token
        for output in outputs
        if output.token is not None and (output.id, output.index) == (request_id, index)
    ]
