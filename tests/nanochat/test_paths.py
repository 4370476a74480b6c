from __future__ import annotations

from pathlib import Path

import pytest

from nanochat.paths import base_dir, check_tag, find_artefact, replace_link, resolve_under, step_dir


@pytest.mark.parametrize(
    "tag", ["..", "../x", "a/b", "/abs", "", ".hidden", "A", "a" * 65, "a\0", "a%2e", "a;b"]
)
def test_no_user_string_becomes_a_path(tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        check_tag(tag)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\0b"])
def test_nothing_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        resolve_under(tmp_path, name)


def test_a_symlink_does_not_lead_out_either(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="out of"):
        resolve_under(root, "link/secret")


def test_an_artefact_is_found_from_here_or_below_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    target = step_dir(base, "base", "d2", 5)
    target.mkdir(parents=True)
    replace_link(base / "base_checkpoints" / "latest.pt", target)
    monkeypatch.chdir(tmp_path)
    assert find_artefact("base_checkpoints/latest.pt", base) == target.resolve()
    assert find_artefact("base/base_checkpoints/latest.pt", base) == target.resolve()
    with pytest.raises(FileNotFoundError, match="neither"):
        find_artefact("mid_checkpoints/latest.pt", base)


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        replace_link(tmp_path / "latest.pt", tmp_path / name)
    assert (tmp_path / "latest.pt").resolve() == tmp_path / "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.pt", "one", "two"]


def test_the_base_directory_comes_from_the_environment() -> None:
    assert base_dir({"NANOCHAT_BASE_DIR": "/x/y"}) == Path("/x/y")
    assert base_dir({}) == Path.home() / ".cache" / "nanochat"
