"""Artefacts say what they were made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nanochat import lineage


def git(place: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(place), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_version_names_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "repo_dir", lambda: tmp_path)
    version = lineage.code_version.__wrapped__
    assert "commit" not in version()
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    assert version() | {"version": None} == {
        "version": None,
        "commit": git(tmp_path, "rev-parse", "HEAD"),
        "changed": False,
    }
    (tmp_path / "code.py").write_text("2")
    assert version()["changed"] is True


def test_a_corpus_is_known_by_its_shards(tmp_path: Path) -> None:
    (tmp_path / "shard_00000.parquet").write_bytes(b"abc")
    (tmp_path / "source.json").write_text('{"source": "x", "documents": 7, "chars": 90}')
    first = lineage.corpus_identity(tmp_path, "mine")
    assert (first["source"], first["documents"], first["chars"], first["shards"]) == ("mine", 7, 90, 1)
    (tmp_path / "shard_00001.parquet").write_bytes(b"def")
    assert lineage.corpus_identity(tmp_path, "mine")["fingerprint"] != first["fingerprint"]


def test_an_artefact_that_says_nothing_has_no_origin(tmp_path: Path) -> None:
    assert lineage.origin_of(tmp_path) is None
    (tmp_path / "meta.json").write_text('{"step": 3, "parent": null}')
    assert lineage.origin_of(tmp_path) is None
    (tmp_path / "meta.json").write_text('{"parent": {"path": "p", "sha256": "s"}, "step": 3}')
    assert lineage.origin_of(tmp_path) == {"parent": {"path": "p", "sha256": "s"}}
