"""The stream of tokens: nothing lost, nothing twice, never stuck, the same again after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanochat.errors import DataError
from nanochat.loader import Loader, Position, position_of_rank
from nanochat.sources.shards import write_shard
from nanochat.tokenizer import Tokenizer

DOCS = [f"Document number {n} says {'la ' * (n % 23)}and ends." for n in range(3000)]
TOKENIZER = Tokenizer.train(iter(DOCS), 300)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("corpus")
    write_shard(place / "shard_00000.parquet", DOCS[:2200])  # three row groups
    write_shard(place / "shard_00001.parquet", DOCS[2200:2900])
    write_shard(place / "shard_00002.parquet", DOCS[2900:])
    return place


def stream_of(texts: list[str]) -> list[int]:
    return [token for text in texts for token in (TOKENIZER.bos, *TOKENIZER.encode(text))]


def loader(corpus: Path, **options: object) -> Loader:
    return Loader(corpus, TOKENIZER, **{"split": "train", "batch": 3, "seq_len": 16, **options})  # type: ignore[arg-type]


def inputs(loader: Loader, batches: int) -> list[int]:
    return [int(token) for _ in range(batches) for token in loader.next()[0].flatten()]


def test_the_batches_are_the_documents_one_after_another(corpus: Path) -> None:
    expected = stream_of(DOCS[:300])
    assert inputs(loader(corpus), 100) == expected[: 100 * 48]


def test_targets_are_the_inputs_one_token_later_across_rows_and_batches(corpus: Path) -> None:
    source = loader(corpus)
    batches = [source.next() for _ in range(5)]
    x = torch.cat([x.flatten() for x, _ in batches])
    y = torch.cat([y.flatten() for _, y in batches])
    assert torch.equal(y[:-1], x[1:])


def test_after_the_last_document_it_begins_again(corpus: Path) -> None:
    whole = stream_of(DOCS[:2900])
    source = loader(corpus)
    count = len(whole) // 48 + 2
    assert inputs(source, count) == (whole + whole)[: count * 48]
    assert source.position.epoch == 1


def test_validation_is_the_last_shard(corpus: Path) -> None:
    assert inputs(loader(corpus, split="val"), 5) == stream_of(DOCS[2900:])[: 5 * 48]


@pytest.mark.parametrize("batches", [0, 1, 7, 300, 1500])
def test_a_new_loader_at_its_position_goes_on_with_the_very_next_token(corpus: Path, batches: int) -> None:
    source = loader(corpus)
    for _ in range(batches):
        source.next()
    again = loader(corpus, position=source.position)
    for _ in range(20):
        (x, y), (x2, y2) = source.next(), again.next()
        assert torch.equal(x, x2) and torch.equal(y, y2)
    assert source.position == again.position


def test_ranks_share_the_row_groups_and_together_read_all_of_them(corpus: Path) -> None:
    groups = [DOCS[0:1024], DOCS[1024:2048], DOCS[2048:2200], DOCS[2200:2900]]
    for rank in (0, 1):
        mine = stream_of(groups[rank] + groups[rank + 2])
        count = len(mine) // 48
        assert inputs(loader(corpus, rank=rank, size=2), count) == mine[: count * 48]


def test_more_ranks_than_row_groups_still_get_text(corpus: Path) -> None:
    assert len(inputs(loader(corpus, rank=6, size=7), 2)) == 96


def test_a_document_longer_than_many_batches_is_read_on_after_a_resume(tmp_path: Path) -> None:
    long = "word " * 5000
    write_shard(tmp_path / "a.parquet", [long, "end"])
    write_shard(tmp_path / "b.parquet", ["val"])
    source = loader(tmp_path)
    source.next()
    assert source.position.doc == 0 and source.position.token == 48
    again = loader(tmp_path, position=source.position)
    assert inputs(source, 3) == inputs(again, 3)


@pytest.mark.parametrize("shards", [0, 1])
def test_too_few_shards_is_an_error_and_no_endless_loop(tmp_path: Path, shards: int) -> None:
    for number in range(shards):
        write_shard(tmp_path / f"{number}.parquet", ["text"])
    with pytest.raises(DataError, match=r"nanochat\.dataset"):
        loader(tmp_path)


def test_shards_without_any_text_are_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    for number in range(2):
        write_shard(tmp_path / f"{number}.parquet", [""] * 5)
    with pytest.raises(DataError, match="no document with text"):
        loader(tmp_path).next()


def test_another_number_of_ranks_goes_on_at_the_earliest_unfinished_row_group() -> None:
    states = [Position(0, 3, 7, 2).to_dict(), Position(0, 2, 1, 0).to_dict()]  # groups 6 and 5 of all
    assert position_of_rank(states, 1, 2) == Position(0, 2, 1, 0)
    assert position_of_rank(states, 0, 1) == Position(0, 5)
    assert [position_of_rank(states, rank, 4) for rank in range(4)] == [
        Position(0, 2),  # groups 8, 12, …
        Position(0, 1),  # groups 5, 9, …
        Position(0, 1),  # groups 6, 10, …
        Position(0, 1),  # groups 7, 11, …
    ]
    assert position_of_rank([], 0, 1) is None
