"""A checkpoint as a directory that transformers loads without extra code (`NanoChatForCausalLM`).

The weights are the same float32 numbers under other names; logits agree to rounding. The tokenizer goes
along as `tokenizer.json` of the tokenizers library, with a chat template.
Not covered: models with `arch: modern`, which transformers does not know.
"""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nanochat.checkpoint import fsync, load_model
from nanochat.errors import DataError
from nanochat.gpt import GPT, NORM_EPS, GPTConfig
from nanochat.interop.formats import PARTIAL, why_not
from nanochat.loss import SOFTCAP
from nanochat.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% set system = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|user_start|>' + (system if loop.first else '') + message['content'] + '<|user_end|>' }}"
    "{% else %}{{ '<|assistant_start|>' + message['content'] + '<|assistant_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant_start|>' }}{% endif %}"
)
PARTS = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def export(checkpoint: Path, out: Path, dtype: torch.dtype = torch.float32) -> list[Path]:
    """Write the model in `checkpoint` to the new or empty directory `out`; returns its files.

    A new directory is whole or not there at all: it is written beside its place, synced and renamed.
    Raises BrokenCheckpoint, DataError for a model that transformers does not know, and FileExistsError
    when `out` holds anything.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not empty: name a new directory")
    model, tokenizer, _ = load_model(checkpoint)
    if said := why_not(model.cfg.to_dict()):
        raise DataError(f"{checkpoint} cannot be exported: {said}")
    if out.exists():  # a mount point, perhaps, which cannot be renamed to
        _write(model, tokenizer, out, dtype)
        return sorted(out.iterdir())
    fresh = out.with_name(f".{out.name}.{os.getpid()}{PARTIAL}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _write(model, tokenizer, fresh, dtype)
        fresh.rename(out)
        fsync(out.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return sorted(out.iterdir())


def _write(model: GPT, tokenizer: Tokenizer, place: Path, dtype: torch.dtype) -> None:
    tensors = {
        hf_name(name): value.detach().to(dtype).contiguous() for name, value in model.state_dict().items()
    }
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    files = {
        "config.json": config(model.cfg, tokenizer, dtype),
        "generation_config.json": generation_config(tokenizer),
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": tokenizer_config(model.cfg),
    }
    for name, content in files.items():
        (place / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    for written in (*place.iterdir(), place):
        fsync(written)


def hf_name(name: str) -> str:
    """transformers' name of one of our parameters."""
    if name == "transformer.wte.weight":
        return "model.embed_tokens.weight"
    if name == "lm_head.weight":
        return name
    _, _, layer, part = name.split(".", 3)
    return f"model.layers.{layer}.{PARTS[part.removesuffix('.weight')]}.weight"


def config(cfg: GPTConfig, tokenizer: Tokenizer, dtype: torch.dtype) -> dict[str, Any]:
    """config.json."""
    end = tokenizer.special("<|assistant_end|>")
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.n_embd,
        "intermediate_size": 4 * cfg.n_embd,
        "num_hidden_layers": cfg.n_layer,
        "num_attention_heads": cfg.n_head,
        "num_key_value_heads": cfg.n_kv_head,
        "max_position_embeddings": cfg.sequence_len,
        "hidden_act": "relu2",
        "rms_norm_eps": NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_theta},
        "final_logit_softcapping": SOFTCAP,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": end,
        "pad_token_id": end,
        "dtype": str(dtype).removeprefix("torch."),
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    end = tokenizer.special("<|assistant_end|>")
    return {"bos_token_id": tokenizer.bos, "eos_token_id": end, "pad_token_id": end}


def tokenizer_config(cfg: GPTConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|assistant_end|>",
        "pad_token": "<|assistant_end|>",
        "model_max_length": cfg.sequence_len,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The same BPE for the tokenizers library: bytes as printable characters, ranks as merges."""
    shown = _printable_bytes()

    def text(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    specials = [
        {
            "id": id, "content": token, "special": True, "normalized": False,
            "single_word": False, "lstrip": False, "rstrip": False,
        }
        for token, id in tokenizer.specials.items()
    ]  # fmt: skip
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {
        "type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    bos = "<|bos|>"
    return {
        "version": "1.0",
        "added_tokens": specials,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, by_bytes]},
        "post_processor": {  # a text begins with <|bos|>, as in training; the chat template writes its own
            "type": "TemplateProcessing",
            "single": [_special(bos), _sequence("A")],
            "pair": [_special(bos), _sequence("A"), _special(bos), _sequence("B")],
            "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos], "tokens": [bos]}},
        },
        "decoder": by_bytes,
        "model": {
            "type": "BPE",
            "vocab": {text(token): rank for token, rank in tokenizer.ranks.items()},
            "merges": [
                [text(part) for part in _merged_from(token, tokenizer.ranks)]
                for token in sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)
                if len(token) > 1
            ],
            "ignore_merges": False,
        },
    }


def _special(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def _sequence(which: str) -> dict[str, Any]:
    return {"Sequence": {"id": which, "type_id": 0}}


def _merged_from(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge made `token`: what the merges before it leave of its bytes."""
    parts = [token[at : at + 1] for at in range(len(token))]
    limit = ranks[token]
    while len(parts) > 2:
        rank, at = min((ranks.get(a + b, limit), at) for at, (a, b) in enumerate(pairwise(parts)))
        assert rank < limit, f"no merges lead to {token!r}"
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _printable_bytes() -> list[str]:
    """A printable character for each byte, as byte-level BPE files write them: itself, or from U+0100 on."""
    keeps = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    shown, extra = [], 0
    for byte in range(256):
        if byte in keeps:
            shown.append(chr(byte))
        else:
            shown.append(chr(256 + extra))
            extra += 1
    return shown
