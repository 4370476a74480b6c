"""Stage `tokenizer`: learn a vocabulary from the training shards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from nanochat.artefacts import relative
from nanochat.checkpoint import Saved, tokenizer_files, write_artefact
from nanochat.common import World, setup_training
from nanochat.dataset import ensure
from nanochat.errors import DataError
from nanochat.lineage import ORIGIN, code_version, corpus_identity, origin_of
from nanochat.paths import replace_link, stage_dir
from nanochat.sources.shards import read_texts, split_shards
from nanochat.stages.tokenizer import TokenizerConfig
from nanochat.tokenizer import Tokenizer


def run(cfg: TokenizerConfig) -> None:
    """Train, save and link a tokenizer."""
    with setup_training(cfg, name="tokenizer") as world:
        if world.is_master:
            world.phase("data", steps=1)
            corpus = ensure(cfg.data_dir or cfg.data, world.base, say=world.say)
            world.phase("train", steps=1)
            saved, metrics = train(cfg, world, corpus)
            world.events.emit("metric", step=0, values=metrics)
            emit_checkpoint(world, saved, "tokenizer", 0, metrics, None)
            world.events.emit("end", step=0, status="succeeded", peak_bytes=world.peak_bytes())
        world.barrier()


def train(cfg: TokenizerConfig, world: World, corpus: Path) -> tuple[Saved, dict[str, float]]:
    """A new tokenizer and its measures. One process calls this, not every rank."""
    started = time.monotonic()
    shards, _ = split_shards(corpus)
    tokenizer = Tokenizer.train(documents(shards, cfg.max_chars, cfg.doc_cap), cfg.vocab_size)
    seconds = time.monotonic() - started
    if tokenizer.vocab_size < cfg.vocab_size:
        world.warn(f"the text has pairs for {tokenizer.vocab_size:,} tokens only, not {cfg.vocab_size:,}")
    sample = "".join(documents(shards, 100_000, cfg.doc_cap))
    if not sample:
        raise DataError(f"{corpus} holds no text; build it again")
    ratio = len(sample.encode()) / len(tokenizer.encode(sample))
    place = _place(cfg, world)
    origin = {"corpus": corpus_identity(corpus, cfg.data_dir or cfg.data), "code": code_version()}
    files = {**tokenizer_files(tokenizer), ORIGIN: json.dumps(origin, indent=1).encode()}
    saved = write_artefact(place, files, {})
    if not cfg.output_dir:
        replace_link(stage_dir(world.base, "tokenizer") / "latest", place)
    world.say(
        f"{tokenizer.vocab_size:,} tokens in {seconds:.1f} s, {ratio:.2f} bytes per token, saved to {place}"
    )
    metrics = {"tokenizer/bytes_per_token": ratio, "tokenizer/vocab_size": float(tokenizer.vocab_size)}
    return saved, metrics


def _place(cfg: TokenizerConfig, world: World) -> Path:
    if cfg.output_dir:
        return Path(cfg.output_dir).expanduser().resolve()
    tag = cfg.model_tag or world.run_id or f"v{cfg.vocab_size}"
    return stage_dir(world.base, "tokenizer") / tag


def documents(shards: list[Path], max_chars: int, doc_cap: int) -> Iterator[str]:
    """Documents, each cut at `doc_cap` characters, until `max_chars` are reached."""
    left = max_chars
    for text in read_texts(shards):
        piece = text[: min(doc_cap, left)]
        yield piece
        left -= len(piece)
        if left <= 0:
            return


def emit_checkpoint(
    world: World,
    saved: Saved,
    stage: str,
    step: int,
    metrics: dict[str, float],
    model: dict[str, int] | None,
) -> None:
    """The event that makes an artefact known to the service."""
    world.events.emit(
        "checkpoint",
        stage=stage,
        step=step,
        path=relative(saved.path, world.base),
        bytes=saved.bytes,
        sha256=saved.sha256,
        metrics=metrics,
        model=model,
        origin=origin_of(saved.path),
    )
