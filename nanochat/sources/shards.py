"""Parquet shards with one `text` column, the form FineWeb-Edu comes in. The last shard is validation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.errors import DataError

ROW_GROUP_DOCS = 1024
SHARD_DOCS = 10 * ROW_GROUP_DOCS
MIN_DOCS = 2
INFO = "source.json"


def shards(directory: Path) -> list[Path]:
    """Whole shards in order; a download or build that has not finished is not among them."""
    return sorted(directory.glob("*.parquet"))


def split_shards(directory: Path) -> tuple[list[Path], Path]:
    """(training shards, validation shard). Raises DataError when there are not both."""
    found = shards(directory)
    if len(found) < 2:
        raise DataError(
            f"{directory} holds {len(found)} parquet shard(s), training needs two (the last is validation); "
            "run `python -m nanochat.dataset --source …` first"
        )
    return found[:-1], found[-1]


def write_shards(directory: Path, documents: Iterable[str], source: str) -> int:
    """Write all documents as shards into `directory`, which appears whole or not at all.

    Returns their number. Raises DataError when there are too few documents for two splits.
    """
    fresh = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        texts = [text for text in documents if text]
        if len(texts) < MIN_DOCS:
            raise DataError(
                f"{source}: {len(texts)} document(s), at least {MIN_DOCS} are needed; add text files"
            )
        per_shard = min(SHARD_DOCS, -(-len(texts) // 2))
        chars = 0
        for number, start in enumerate(range(0, len(texts), per_shard)):
            chunk = texts[start : start + per_shard]
            chars += sum(map(len, chunk))
            write_shard(fresh / f"shard_{number:05d}.parquet", chunk)
        info = {"source": source, "documents": len(texts), "chars": chars}
        (fresh / INFO).write_text(json.dumps(info, indent=1), encoding="utf-8")
        shutil.rmtree(directory, ignore_errors=True)
        fresh.rename(directory)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return len(texts)


def write_shard(file: Path, texts: list[str]) -> None:
    """One shard, row groups of 1024 documents."""
    table = pa.table(
        {"text": pa.array(texts, pa.large_string() if sum(map(len, texts)) > 1 << 29 else pa.string())}
    )
    pq.write_table(table, file, row_group_size=ROW_GROUP_DOCS, compression="zstd")


def read_texts(files: Iterable[Path]) -> Iterator[str]:
    """Documents of these shards, in order. Raises DataError for a file without a `text` column."""
    for file in files:
        with open_shard(file) as parquet:
            for group in range(parquet.num_row_groups):
                yield from read_group(parquet, group)


def open_shard(file: Path) -> pq.ParquetFile:
    """The opened shard. Raises DataError when it is damaged or has no `text` column."""
    try:
        parquet = pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{file} is no readable parquet file ({error}); delete it and fetch it again"
        ) from None
    if "text" not in parquet.schema_arrow.names:
        columns = ", ".join(parquet.schema_arrow.names)
        raise DataError(f"{file} has no column named text (it has {columns})")
    return parquet


def read_group(parquet: pq.ParquetFile, group: int) -> list[str]:
    """Texts of one row group; nulls are left out."""
    column = parquet.read_row_group(group, columns=["text"]).column("text")
    return [text for text in column.to_pylist() if text]
