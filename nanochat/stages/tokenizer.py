"""Stage `tokenizer`: train a byte-level BPE tokenizer on the corpus."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Stage, StageConfig


class TokenizerConfig(StageConfig):
    """Byte-level BPE in the style of GPT-4, trained by rustbpe."""

    vocab_size: int = Field(default=65536, ge=265, le=1_000_000)
    """Tokens in the vocabulary, the 256 bytes and the 9 special tokens included."""
    max_chars: int = Field(default=10_000_000_000, ge=1)
    """Characters of the corpus to train on."""
    doc_cap: int = Field(default=10_000, ge=1)
    """Characters to take from one document at most."""
    data: str = "pydocs"
    """Corpus: pydocs, fineweb-edu, climbmix, or a directory or file of txt, md, jsonl or parquet."""
    data_dir: str = ""
    """Directory of parquet shards to read; empty: the corpus's own below the base directory."""
    output_dir: str = ""
    """Directory to write to; empty: tokenizer/<tag> below the base directory."""
    model_tag: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$")
    """Name of the output directory; empty: the run's id in the service, else v<vocab_size>."""


STAGE = Stage(
    name="tokenizer",
    title="Tokenizer",
    script="scripts.tok_train",
    config=TokenizerConfig,
    distributed=False,
    uses_gpu=False,
)
