"""`python -m nanochat.bench_tokenizer`: training and encoding against rustbpe and tiktoken used plainly.

Text: the distinct Python sources of this environment and the standard library, no file twice, as parquet
shards. Training is the stage's own function, from shards on disk to a saved tokenizer; plain rustbpe gets
the same documents from memory. Encoding is what the loader calls, and once more from shards to mapped files;
plain tiktoken encodes the same documents in one threaded call. Sides in turn; medians of the rounds.
Not covered: natural language in the proportions of a web corpus.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

MAX_FILE_BYTES = 500_000  # beyond that it is a generated table
DOC_CHARS = 10_000  # the stage's doc_cap: both sides see the same text
SHARD_DOCS = 4096
ENCODED_DOCS = 1500  # about 10 MB: the rates do not depend on how much there is


def sources(megabytes: float) -> list[str]:
    """Pieces of distinct source files, at most DOC_CHARS long, of so many MB in all. Raises SystemExit."""
    from nanochat.sources.pydocs import python_roots

    found: list[str] = []
    seen: set[int] = set()
    left = megabytes * 1e6
    for file in _files(python_roots()):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) > MAX_FILE_BYTES or hash(text) in seen:
            continue
        seen.add(hash(text))
        found += [text[at : at + DOC_CHARS] for at in range(0, len(text), DOC_CHARS)]
        left -= len(text.encode())
        if left <= 0:
            return found
    raise SystemExit(f"bench_tokenizer: there are {left / 1e6:.1f} MB too few; use --megabytes")


def _files(roots: list[Path]) -> Iterator[Path]:
    for root in roots:
        for directory, names, files in os.walk(root):
            names.sort()
            yield from (Path(directory, name) for name in sorted(files) if name.endswith(".py"))


def write_shards(texts: list[str], place: Path) -> None:
    """The documents as a corpus: training shards, and the last one for validation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place.mkdir(parents=True)
    parts = [texts[at : at + SHARD_DOCS] for at in range(0, len(texts), SHARD_DOCS)]
    for number, part in enumerate([*parts, texts[:10]]):
        pq.write_table(pa.table({"text": part}), place / f"shard_{number:05d}.parquet", row_group_size=512)


def alternate(rounds: int, sides: Mapping[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Median (seconds, CPU seconds of all threads) by side; each round is printed.

    The CPU seconds say who works more even where other programs take the cores.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            started, cpu = time.perf_counter(), time.process_time()
            run()
            found = (time.perf_counter() - started, time.process_time() - cpu)
            times[name].append(found)
            print(f"  round {number + 1}, {name}: {found[0]:.2f} s, {found[1]:.2f} CPU s", flush=True)
    return {
        name: (statistics.median(one[0] for one in found), statistics.median(one[1] for one in found))
        for name, found in times.items()
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_tokenizer", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--vocab_size", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(argv)
    texts = sources(given.megabytes)
    size = sum(len(text.encode()) for text in texts)
    print(f"{size / 1e6:.1f} MB, {len(texts):,} documents, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as scratch:
        os.environ["NANOCHAT_BASE_DIR"] = scratch
        write_shards(texts, Path(scratch) / "corpus")
        training(given, texts, Path(scratch))
        encoding(given, texts[:ENCODED_DOCS], Path(scratch))
    return 0


def training(given: argparse.Namespace, texts: list[str], home: Path) -> None:
    """The stage's training beside rustbpe's."""
    import rustbpe

    from nanochat.common import setup_training
    from nanochat.stages.tokenizer import TokenizerConfig
    from nanochat.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN
    from nanochat.train.tokenizer import train

    cfg = TokenizerConfig(vocab_size=given.vocab_size, data=str(home / "corpus"), model_tag="bench")

    def plain() -> None:
        trainer = rustbpe.Tokenizer()  # type: ignore[attr-defined]  # a compiled module without stubs
        trainer.train_from_iterator(
            iter(texts), given.vocab_size - len(SPECIAL_TOKENS), pattern=SPLIT_PATTERN
        )

    with setup_training(cfg, name="bench") as world:
        sides = {"ours": lambda: train(cfg, world, home / "corpus"), "rustbpe": plain}
        found = alternate(given.rounds, sides)
    ours, peer = found["ours"], found["rustbpe"]
    print(
        f"training: ours {ours[0]:.2f} s, plain rustbpe {peer[0]:.2f} s, {ours[0] / peer[0]:.3f} × as long "
        f"({ours[1] / peer[1]:.3f} × in CPU seconds)",
        flush=True,
    )


def encoding(given: argparse.Namespace, texts: list[str], home: Path) -> None:
    """What the loader calls, and shards to mapped files, beside one threaded call of tiktoken."""
    import tiktoken

    from nanochat.tokenizer import Tokenizer
    from nanochat.tokens import TokenStream

    tokenizer = Tokenizer.load(home / "tokenizer" / "bench")
    corpus, size = home / "encoded", sum(len(text.encode()) for text in texts)
    write_shards(texts, corpus)
    encoding = tiktoken.Encoding(
        "plain", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens=tokenizer.specials
    )

    def to_files() -> None:
        for place in corpus.glob("tokens-*"):
            shutil.rmtree(place)
        TokenStream(corpus, tokenizer, split="train", threads=given.threads).total()

    found = alternate(
        given.rounds,
        {
            "ours": lambda: tokenizer.encode_arrays(texts, given.threads),
            "tiktoken": lambda: encoding.encode_ordinary_batch(texts, num_threads=given.threads),
            "to files": to_files,
        },
    )
    rates = {name: size / seconds / 1e6 for name, (seconds, _) in found.items()}
    ours, peer = found["ours"], found["tiktoken"]
    print(
        f"encoding, {given.threads} threads: ours {rates['ours']:.2f} MB/s, plain tiktoken "
        f"{rates['tiktoken']:.2f} MB/s, {peer[0] / ours[0]:.2f} × as fast ({peer[1] / ours[1]:.2f} × in CPU "
        f"seconds); shards to mapped files {rates['to files']:.2f} MB/s",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
