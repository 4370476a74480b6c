"""Artefacts travel over a storage whole, checked, and never half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from nanochat.storage import MANIFEST, Storage, StorageError
from tests.storage.conftest import content_of, write_artefact

STEP = "base_checkpoints/r1/step_000010"
FILES = {"model.safetensors": os.urandom(200_000), "meta.json": b"{}", "empty": b""}


@pytest.fixture
def hosts(url: str, tmp_path: Path) -> tuple[Storage, Storage, Path, Path]:
    """Two hosts with a base directory each, and one storage."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    return Storage(url, a), Storage(url, b), a, b


def test_what_one_host_pushes_another_pulls(hosts: tuple[Storage, Storage, Path, Path]) -> None:
    one, other, a, b = hosts
    write_artefact(a / STEP, FILES)
    assert not other.has(STEP)
    assert one.push(STEP) > 200_000 and one.push(STEP) == 0, "what is there is not sent again"
    assert other.has(STEP) and other.pull(STEP) is True and other.pull(STEP) is False
    assert content_of(b / STEP) == FILES
    assert (b / STEP / MANIFEST).read_bytes() == (a / STEP / MANIFEST).read_bytes()


def test_steps_are_listed_in_their_order_and_only_whole_ones(
    hosts: tuple[Storage, Storage, Path, Path],
) -> None:
    one, other, a, _ = hosts
    for step in (20, 1_000_000, 3):
        write_artefact(a / f"base_checkpoints/r1/step_{step:06d}", FILES)
        one.push(f"base_checkpoints/r1/step_{step:06d}")
    assert [path[-7:] for path in other.steps("base_checkpoints/r1")] == ["_000003", "_000020", "1000000"]
    one.remove("base_checkpoints/r1/step_000020")
    assert len(other.steps("base_checkpoints/r1")) == 2 and other.steps("base_checkpoints/none") == []
    one.remove("base_checkpoints/r1")
    one.remove("base_checkpoints/r1")
    assert other.steps("base_checkpoints/r1") == []


def test_another_artefact_of_the_same_name_replaces_the_first(
    hosts: tuple[Storage, Storage, Path, Path],
) -> None:
    one, other, a, b = hosts
    write_artefact(a / STEP, FILES)
    one.push(STEP)
    write_artefact(a / STEP, {**FILES, "meta.json": b"again"})
    one.push(STEP)
    other.pull(STEP)
    assert (b / STEP / "meta.json").read_bytes() == b"again"


def test_a_damaged_file_is_refused_and_leaves_nothing(hosts: tuple[Storage, Storage, Path, Path]) -> None:
    one, other, a, b = hosts
    write_artefact(a / STEP, FILES)
    one.push(STEP)
    with other._fs.open(other._file(STEP, "meta.json"), "wb") as file:
        file.write(b"[]")
    with pytest.raises(StorageError, match="is damaged"):
        other.pull(STEP)
    assert list((b / STEP).parent.iterdir()) == []
    with pytest.raises(StorageError, match="has no base_checkpoints/r1/step_000099"):
        other.pull("base_checkpoints/r1/step_000099")


def test_what_was_pushed_half_is_not_there(
    hosts: tuple[Storage, Storage, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, a, b = hosts
    write_artefact(a / STEP, FILES)
    (a / STEP / "model.safetensors").unlink()  # the upload breaks in the middle
    with pytest.raises(StorageError):
        one.push(STEP)
    assert not other.has(STEP) and other.steps("base_checkpoints/r1") == []
    write_artefact(a / STEP, FILES)
    one.push(STEP)
    (b / STEP).mkdir(parents=True)
    (b / STEP / "model.safetensors").write_bytes(b"half")  # what a killed host left
    assert other.pull(STEP) and content_of(b / STEP) == FILES


def test_a_users_file_travels_as_it_is_and_again_when_it_is_another_one(
    hosts: tuple[Storage, Storage, Path, Path],
) -> None:
    one, other, a, b = hosts
    name = "files/text/books.txt"
    for content in (os.urandom(100_000), b"another one of that name"):
        (a / "part").write_bytes(content)
        one.push_file(name, a / "part", sha256(content).hexdigest())
        assert other.files("files/text") == [name]
        assert other.pull_file(name) is True and other.pull_file(name) is False
        assert (b / name).read_bytes() == content
    (b / "files/text/own.txt").write_bytes(b"put there by hand")
    assert other.pull_file("files/text/own.txt") is False
    with pytest.raises(StorageError, match=r"has no files/text/none\.txt"):
        other.pull_file("files/text/none.txt")
    with other._fs.open(other._file(name, "content"), "wb") as file:
        file.write(b"damaged")
    (b / name).unlink()
    with pytest.raises(StorageError, match="is damaged"):
        other.pull_file(name)
    assert [path.name for path in (b / "files/text").iterdir()] == ["own.txt"]
    one.remove(name)
    assert other.files("files/text") == []


@pytest.mark.parametrize("path", ["../x", "/etc", "base_checkpoints/../../x", "a\0b"])
def test_no_path_leads_out_of_the_base_directory(tmp_path: Path, path: str) -> None:
    store = Storage(f"file://{tmp_path / 'shared'}", tmp_path)
    for act in (store.push, store.pull, store.pull_file, store.remove, store.has):
        with pytest.raises(ValueError):
            act(path)


@pytest.mark.parametrize("name", ["../../.bashrc", "/etc/passwd", "a/b", "..", "manifest.json"])
def test_a_manifest_that_names_paths_is_refused(tmp_path: Path, name: str) -> None:
    there = tmp_path / "shared" / STEP
    there.mkdir(parents=True)
    (there / MANIFEST).write_text(json.dumps({"files": {name: {"bytes": 1, "sha256": "0"}}}))
    with pytest.raises(StorageError, match="no plain file name"):
        Storage(f"file://{tmp_path / 'shared'}", tmp_path / "b").pull(STEP)


def test_a_storage_is_checked_before_it_is_relied_on(url: str, tmp_path: Path) -> None:
    Storage(url, tmp_path).check()
    with pytest.raises(StorageError, match="no storage"):
        Storage("nosuch://x", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Storage(f"file://{tmp_path / 'file' / 'below'}", tmp_path).check()


def test_a_bucket_that_is_not_there_is_said(s3_url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="bucket"):
        Storage("s3://no-such-bucket-here/x", tmp_path).push(_with_artefact(tmp_path))


def _with_artefact(base: Path) -> str:
    write_artefact(base / STEP, FILES)
    return STEP


def test_the_manifest_is_the_trainers_own() -> None:
    from nanochat import checkpoint

    assert checkpoint.MANIFEST == MANIFEST


def test_the_storage_is_loaded_without_torch() -> None:
    code = "import sys, nanochat.storage; print('torch' in sys.modules, 'fsspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
