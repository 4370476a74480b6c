"""What an uploaded file must hold: the first bad line is named, and nothing breaks the reader."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat import file_check
from nanochat.errors import DataError
from nanochat.paths import repo_dir

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
CALL = '[{"type": "python", "text": "2+3"}]'
PARTS = f'[{{"role": "user", "content": "2+3"}}, {{"role": "assistant", "content": {CALL}}}]'


def checked(kind: str, name: str, content: bytes | str, folder: Path) -> int | None:
    file = folder / "part"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file_check.check(kind, name, file)


@pytest.mark.parametrize(
    ("kind", "name", "content", "items"),
    [
        ("conversations", "a.jsonl", f"{GOOD}\n\n{PARTS}\n", 2),
        ("conversations", "a.jsonl", f"\ufeff{GOOD}", 1),
        ("text", "a.txt", "Some text.\nAnd more, with an ü.", 1),
        ("text", "a.md", "# Title\n\n" + ("word " * 500 + "\n\n") * 3, 3),
        ("text", "a.jsonl", '{"text": "one"}\n\n{"text": "two", "id": 2}\n', 2),
        ("preset", "a.py", '"""Mine."""\ndepth = 4\nmax_seq_len = 2 * 128\n', None),
        ("preset", "a.json", '{"depth": 4, "max_seq_len": 256}', None),
    ],
)
def test_good_files_are_counted(
    kind: str, name: str, content: str, items: int | None, tmp_path: Path
) -> None:
    assert checked(kind, name, content, tmp_path) == items


def test_parquet_needs_a_column_of_text(tmp_path: Path) -> None:
    file = tmp_path / "part"
    pq.write_table(pa.table({"text": ["one", None, "", "two"], "n": [1, 2, 3, 4]}), file)
    assert file_check.check("text", "a.parquet", file) == 2
    pq.write_table(pa.table({"text": pa.array(["one"]).dictionary_encode()}), file)
    assert file_check.check("text", "a.parquet", file) == 1
    for table, why in (
        (pa.table({"body": ["x"]}), r"^a\.parquet has no column named text \(it has body\)$"),
        (pa.table({"text": [1]}), "holds int64, not text"),
        (pa.table({"text": pa.array([b"\xff"])}), "holds binary, not text"),
        (pa.table({"text": pa.array([], pa.string())}), "holds no text"),
    ):
        pq.write_table(table, file)
        with pytest.raises(DataError, match=why):
            file_check.check("text", "a.parquet", file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^a\.parquet is no readable parquet"):
        file_check.check("text", "a.parquet", file)


BAD = [
    ("conversations", "a.jsonl", "", "holds no conversation"),
    ("conversations", "a.jsonl", f"{GOOD}\nbroken", r"^a\.jsonl, line 2: no JSON: .*\(column 1\)"),
    ("conversations", "a.jsonl", f"{GOOD}\n\n{{}}", "line 3: expected"),
    ("conversations", "a.jsonl", "[" * 100_000, "line 1: no JSON"),
    ("conversations", "a.jsonl", '[{"role": "assistant", "content": "b"}]', "message 0 is from 'assistant'"),
    ("conversations", "a.jsonl", '[{"role": "user", "content": "\\ud800"}]', "line 1: half of a character"),
    ("conversations", "a.jsonl", '[{"role": "user", "content": ["x"]}]', "message 0: a user's content"),
    ("conversations", "a.jsonl", PARTS.replace('"python"', '"shell"'), "unknown part 'shell'"),
    ("conversations", "a.jsonl", PARTS.replace('"text": "2+3"', '"x": 1'), "type 'python' has no text"),
    ("conversations", "a.jsonl", PARTS.replace(CALL, "7"), "text or a list"),
    ("conversations", "a.jsonl", b"\xff\xfe{\x00", "line 1: no JSON"),
    ("text", "a.txt", " \n\t\n", "holds no text"),
    ("text", "a.txt", b"first\nsecond \xff\n", r"a\.txt, line 2: not UTF-8"),
    ("text", "a.txt", "ü".encode()[:1], "line 1: not UTF-8"),
    ("text", "a.jsonl", '{"text": "one"}\n{"body": "two"}', r'line 2: expected a JSON object .* "text"'),
    ("text", "a.jsonl", b'{"text": "one"}\n\xff\n', "line 2: not UTF-8"),
    ("text", "a.jsonl", '{"text": "\\udfff"}', "line 1: half of a character"),
    ("text", "a.jsonl", '{"text": " "}', "holds no text"),
    ("preset", "a.py", "import os\n", r"a\.py, line 1: only `name = literal`"),
    ("preset", "a.py", "depth = __import__('os')\n", "line 1"),
    ("preset", "a.py", "# nothing\n", "sets nothing"),
    ("preset", "a.py", "detph = 4\n", "no stage knows all of its keys, 'detph' among them"),
    ("preset", "a.py", "depth = 'deep'\n", "depth"),
    ("preset", "a.py", "depth = 4\n" + "#" * 70_000, "larger than 65536 bytes"),
    ("preset", "a.py", b"depth = 4 # \xff", "not UTF-8"),
    ("preset", "a.json", "depth = 4\n", r"a\.json: Expecting value"),
    ("preset", "a.json", '{"depth": 4, "depth": 5}', "'depth' is assigned twice"),
    ("preset", "a.json", '{"depth": NaN}', "NaN is no number of JSON"),
    ("preset", "a.json", '[{"depth": 4}]', "must hold one JSON object"),
    ("preset", "a.json", '{"detph": 4}', "no stage knows all of its keys, 'detph' among them"),
    ("preset", "a.json", '{"depth": [4]}', "depth"),
    ("preset", "a.json", '{"depth": 4}' + " " * 70_000, "larger than 65536 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "content", "why"), BAD)
def test_bad_files_are_told_what_is_wrong_and_where(
    kind: str, name: str, content: bytes | str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=why):
        checked(kind, name, content, tmp_path)


def test_a_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_check, "LONGEST_LINE_BYTES", 100)
    for kind in ("conversations", "text"):
        with pytest.raises(DataError, match="line 2: longer than"):
            checked(kind, "a.jsonl", " \n" + '{"text": "' + "x" * 200, tmp_path)


NAMES = {
    "conversations": ["a.jsonl"],
    "text": ["a.txt", "a.jsonl", "a.parquet"],
    "preset": ["a.py", "a.json"],
}
PIECES = [
    GOOD,
    PARTS,
    "\n",
    '{"text": "x"}',
    '{"text": "\\ud800"}',
    "depth = 2",
    '{"depth": 2}',
    "PAR1",
    b"\xff",
]


@given(pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=20)), data=st.data())
def test_no_bytes_make_a_check_do_anything_but_count_or_refuse(
    pieces: list[bytes | str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    kind = data.draw(st.sampled_from(sorted(NAMES)))
    name = data.draw(st.sampled_from(NAMES[kind]))
    try:
        checked(kind, name, content, tmp_path_factory.mktemp("check"))
    except DataError as error:
        assert str(error).startswith(name)


def run(kind: str, name: str, file: Path) -> dict[str, Any]:
    argv = [sys.executable, "-m", "nanochat.file_check", kind, name, str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=repo_dir(), timeout=60)
    return dict(json.loads(done.stdout))


def test_the_program_answers_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "part"
    file.write_text(GOOD)
    digest = sha256(GOOD.encode()).hexdigest()
    assert run("conversations", "a.jsonl", file) == {"sha256": digest, "items": 1}
    pq.write_table(pa.table({"text": ["one", "two"]}), file)
    assert run("text", "a.parquet", file)["items"] == 2, "its walls leave room for parquet"
    assert "line 1: no JSON" in run("conversations", "a.jsonl", file)["message"]
