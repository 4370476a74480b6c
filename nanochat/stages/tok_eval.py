"""Stage `tok_eval`: how well a tokenizer compresses, beside others that are on this machine."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Input, Stage, StageConfig


class TokEvalConfig(StageConfig):
    """Bytes per token by domain, and a check of token_bytes.pt."""

    tokenizer: str = ""
    """Tokenizer or checkpoint directory: a path; empty: the newest tokenizer."""
    data: str = "pydocs"
    """Corpus: pydocs, fineweb-edu, climbmix, or a directory or file of txt, md, jsonl or parquet."""
    max_chars: int = Field(default=1_000_000, ge=1)
    """Characters of each split of the corpus to encode at most."""


STAGE = Stage(
    name="tok_eval",
    title="Tokenizer evaluation",
    script="scripts.tok_eval",
    config=TokEvalConfig,
    inputs=(Input("tokenizer", ("tokenizer",)),),
    makes_checkpoints=False,
    distributed=False,
    uses_gpu=False,
)
