"""The stream of tokens: nothing lost, nothing twice, never stuck, the same for any number of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.errors import DataError
from nanochat.loader import Loader
from nanochat.sources.shards import write_shard
from nanochat.tokenizer import Tokenizer
from nanochat.tokens import TokenStream, pack

DOCS = [f"Document number {n} says {'la ' * (n % 23)}and ends." for n in range(1500)]
TOKENIZER = Tokenizer.train(iter(DOCS), 300)
B, T = 3, 16


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_shard(tmp_path / "shard_00000.parquet", DOCS[:1100])  # two row groups
    write_shard(tmp_path / "shard_00001.parquet", DOCS[1100:1400])
    write_shard(tmp_path / "shard_00002.parquet", DOCS[1400:])
    return tmp_path


def stream_of(texts: list[str]) -> list[int]:
    return [token for text in texts for token in (TOKENIZER.bos, *TOKENIZER.encode(text))]


def stream(corpus: Path, **options: object) -> TokenStream:
    return TokenStream(corpus, TOKENIZER, **{"split": "train", **options})  # type: ignore[arg-type]


def loader(corpus: Path, **options: object) -> Loader:
    return Loader(stream(corpus), **{"batch": B, "seq_len": T, **options})  # type: ignore[arg-type]


def test_the_batches_are_the_documents_one_after_another(corpus: Path) -> None:
    expected = stream_of(DOCS[:1400])
    source = loader(corpus)
    batches = [source.next() for _ in range(len(expected) // (B * T))]
    x = torch.cat([x.flatten() for x, _ in batches])
    y = torch.cat([y.flatten() for _, y in batches])
    assert x.tolist() == expected[: len(x)]
    assert torch.equal(y[:-1], x[1:])


def test_behind_the_last_document_it_begins_again(corpus: Path) -> None:
    whole = stream_of(DOCS[:1400])
    assert stream(corpus).read(len(whole) - 20, 40).tolist() == whole[-20:] + whole[:20]
    assert stream(corpus).read(5 * len(whole) + 7, 9).tolist() == whole[7:16]
    assert stream(corpus).total() == len(whole)


def test_validation_is_the_last_shard(corpus: Path) -> None:
    val = stream_of(DOCS[1400:])
    assert stream(corpus, split="val").read(0, len(val)).tolist() == val


@pytest.mark.parametrize("cuts", [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_a_step_reads_the_same_rows_however_it_is_cut(corpus: Path, cuts: tuple[int, int]) -> None:
    size, rows = cuts
    seen: set[tuple[int, ...]] = set()
    for rank in range(size):
        source = loader(corpus, rank=rank, size=size, batch=rows, row=12)
        seen |= {tuple(row) for row in source.next()[0].tolist()}
        assert source.row == 18
    ids = stream_of(DOCS[:1400])
    assert seen == {tuple(ids[row * T : (row + 1) * T]) for row in range(12, 18)}


def test_a_shard_is_tokenised_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(corpus).total()
    monkeypatch.setattr(Tokenizer, "encode_arrays", None)  # would fail
    assert len(stream(corpus).read(0, 100)) == 100


def test_the_next_shard_is_made_in_the_background(corpus: Path) -> None:
    source = stream(corpus)
    source.read(0, 10)
    assert source._ahead is not None
    source._ahead.join(10)
    assert len(list(corpus.glob("tokens-*/shard_00001.bin"))) == 1


def test_lengths_from_a_checkpoint_spare_the_shards_before(corpus: Path, tmp_path: Path) -> None:
    whole = stream_of(DOCS[:1400])
    first = stream(corpus)
    first.total()
    lengths = first.lengths
    for file in corpus.glob("tokens-*/*.bin"):
        file.unlink()
    again = stream(corpus, lengths=lengths)
    start = lengths[0] + 30
    assert again.read(start, 50).tolist() == whole[start : start + 50]
    assert [file.stem for file in corpus.glob("tokens-*/*.bin")] == ["shard_00001"]


def test_text_that_changed_since_the_checkpoint_is_an_error(corpus: Path) -> None:
    with pytest.raises(DataError, match="the corpus has changed"):
        stream(corpus, lengths=[7]).read(0, 5)


def test_a_half_written_file_of_ids_is_made_anew(corpus: Path) -> None:
    expected = stream(corpus).read(0, 100).tolist()
    (file,) = corpus.glob("tokens-*/shard_00000.bin")
    file.rename(file.with_name(f"{file.name}.tmp"))
    assert stream(corpus).read(0, 100).tolist() == expected


def test_a_vocabulary_beyond_16_bits_is_stored_in_32(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TOKENIZER, "vocab_size", 70_000)
    stream(corpus).read(0, 5)
    (file,) = corpus.glob("tokens-*/shard_00000.bin")
    assert file.stat().st_size == 4 * len(stream_of(DOCS[:1100]))


@pytest.mark.parametrize("shards", [0, 1])
def test_too_few_shards_is_an_error_and_no_endless_loop(tmp_path: Path, shards: int) -> None:
    for number in range(shards):
        write_shard(tmp_path / f"{number}.parquet", ["text"])
    with pytest.raises(DataError, match=r"nanochat\.dataset"):
        stream(tmp_path)


def test_shards_without_any_text_are_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    for number in range(2):
        write_shard(tmp_path / f"{number}.parquet", [""] * 5)
    with pytest.raises(DataError, match="no document with text"):
        stream(tmp_path).read(0, 1)


def test_packed_rows_begin_with_a_document_and_are_rows_on_their_own(corpus: Path) -> None:
    source = Loader(stream(corpus, row=T + 1), batch=B, seq_len=T, packed=True)
    for _ in range(30):
        x, y = source.next()
        assert (x[:, 0] == TOKENIZER.bos).all()
        assert torch.equal(x[:, 1:], y[:, :-1])


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 25))
def test_packing_fills_every_row_and_uses_no_document_twice(lengths: list[int], row: int) -> None:
    documents = [np.full(length, number) for number, length in enumerate(lengths)]
    pieces = pack(documents, row)
    assert sum(map(len, pieces)) % row == 0
    numbers = [int(piece[0]) for piece in pieces]
    assert len(set(numbers)) == len(numbers)
    at = 0
    for piece in pieces:
        whole = len(piece) == lengths[int(piece[0])]
        at += len(piece)
        assert whole or at % row == 0  # only the last piece of a row may be cut
