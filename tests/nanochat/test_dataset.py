"""Every source becomes parquet shards; the last one is validation."""

from __future__ import annotations

import io
import json
import multiprocessing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat import dataset
from nanochat.errors import DataError
from nanochat.sources import folder, pydocs
from nanochat.sources.shards import ROW_GROUP_DOCS, read_texts, shards, split_shards, write_shards


def quiet(text: str) -> None:
    del text


@pytest.fixture
def small_pydocs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the standard library's json package, so that a build takes no time."""
    monkeypatch.setattr(pydocs, "python_roots", lambda: [Path(json.__file__).parent])


def test_pydocs_becomes_shards_with_one_text_column(tmp_path: Path, small_pydocs: None) -> None:
    place = dataset.ensure("pydocs", tmp_path, say=quiet)
    assert place == tmp_path / "base_data" / "pydocs"
    train, val = split_shards(place)
    assert [file.name for file in [*train, val]] == ["shard_00000.parquet", "shard_00001.parquet"]
    assert pq.ParquetFile(val).schema_arrow.names == ["text"]
    texts = list(read_texts([*train, val]))
    assert texts == pydocs.documents([Path(json.__file__).parent])


def test_a_corpus_that_is_there_is_not_built_again(tmp_path: Path, small_pydocs: None) -> None:
    said: list[str] = []
    first = dataset.ensure("pydocs", tmp_path, say=said.append)
    before = shards(first)[0].stat().st_mtime_ns
    dataset.ensure("pydocs", tmp_path, say=said.append)
    assert len(said) == 1 and shards(first)[0].stat().st_mtime_ns == before


def test_two_builds_give_the_same_bytes(tmp_path: Path, small_pydocs: None) -> None:
    places = [dataset.ensure("pydocs", tmp_path / name, say=quiet) for name in ("a", "b")]
    first, second = ([file.read_bytes() for file in shards(place)] for place in places)
    assert first == second


def _build(base: str, root: str) -> None:
    pydocs.python_roots = lambda: [Path(root)]  # type: ignore[assignment]
    dataset.ensure("pydocs", Path(base), say=print)


def test_of_two_processes_one_builds_and_the_other_waits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fork = multiprocessing.get_context("fork")
    arguments = (str(tmp_path), str(Path(json.__file__).parent))
    processes = [fork.Process(target=_build, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert capfd.readouterr().out.count("corpus pydocs") == 1


def test_a_folder_of_txt_md_jsonl_and_parquet_is_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.txt").write_text("first")
    (folder / "deep" / "two.md").write_text("# second")
    (folder / "three.jsonl").write_text('{"text": "third"}\n\n{"text": "fourth", "id": 4}\n')
    pq.write_table(pa.table({"text": ["fifth", None, "sixth"], "n": [1, 2, 3]}), folder / "four.parquet")
    (folder / "ignored.bin").write_bytes(b"\0")
    place = dataset.ensure(str(folder), tmp_path, say=quiet)
    texts = set(read_texts(shards(place)))
    assert texts == {"first", "# second", "third", "fourth", "fifth", "sixth"}
    assert len(shards(place)) == 2


def test_a_folder_that_changed_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"text {number}")
    place = dataset.ensure(str(folder), tmp_path, say=quiet)
    (folder / "3.txt").write_text("text 3")
    assert dataset.ensure(str(folder), tmp_path, say=quiet) == place
    assert sorted(read_texts(shards(place))) == [f"text {number}" for number in range(4)]


def test_one_file_is_a_corpus_and_a_long_text_becomes_documents(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {number}. " + "Words and words. " * 30 for number in range(60)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    texts = list(read_texts(shards(dataset.ensure("book.txt", tmp_path, say=quiet))))
    assert len(texts) > 5 and all(2000 <= len(text) < 3000 for text in texts if "Paragraph 59." not in text)
    assert sorted("".join(texts)) == sorted("\n\n".join(paragraphs)), "nothing is left out"
    (tmp_path / "rows.jsonl").write_text('{"text": "first"}\n{"text": "second"}\n')
    assert set(read_texts(shards(dataset.ensure("rows.jsonl", tmp_path, say=quiet)))) == {"first", "second"}
    (tmp_path / "book.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"ends in \.txt, \.md, \.jsonl, \.parquet"):
        dataset.ensure("book.pdf", tmp_path, say=quiet)


@given(st.text(alphabet="ab \n", max_size=300), st.integers(1, 50), st.integers(0, 50))
def test_pieces_of_a_text_are_the_text(text: str, least: int, more: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "PIECE_CHARS", least)
        patch.setattr(folder, "LONGEST_PIECE_CHARS", least + more)
        found = list(folder.pieces(io.StringIO(text)))
    assert "".join(found) == text and all(0 < len(piece) < 2 * (least + more) for piece in found)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no text"),
        ({"a.txt": "only one"}, "at least 2"),
        ({"a.jsonl": '{"body": "x"}'}, "line 1"),
        ({"a.jsonl": "not json"}, "line 1"),
        ({"a.parquet": "not parquet"}, "no readable parquet"),
    ],
)
def test_bad_folders_say_what_to_do(tmp_path: Path, files: dict[str, str], message: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        dataset.ensure(str(folder), tmp_path, say=quiet)
    assert not [path for path in (tmp_path / "base_data").iterdir() if path.is_dir()]


def test_a_shard_without_a_text_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"s\.parquet has no column named text \(it has body\)"):
        list(read_texts([tmp_path / "s.parquet"]))


def test_large_corpora_become_many_shards_of_whole_row_groups(tmp_path: Path) -> None:
    write_shards(tmp_path / "many", (f"document {n}" for n in range(25_000)), "test")
    files = shards(tmp_path / "many")
    assert len(files) == 3
    assert pq.ParquetFile(files[0]).metadata.row_group(0).num_rows == ROW_GROUP_DOCS


def test_an_unknown_source_names_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert dataset.main(["--source", "fineweb"]) == 1
    assert "use pydocs, fineweb-edu, climbmix" in capsys.readouterr().err


def test_the_command_builds_the_default_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pydocs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert dataset.main(["-n", "1", "-w", "1"]) == 0
    assert f"2 shards in {tmp_path / 'base_data' / 'pydocs'}" in capsys.readouterr().out
