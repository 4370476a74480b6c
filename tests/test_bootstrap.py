"""`.venv` is made once, repaired when it must be, and what is in the way is said in one sentence."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

REPO = Path(__file__).resolve().parents[1]
PYPROJECT = """
[project]
dependencies = ["torch==2.13.0", "rich>=1"]
[project.optional-dependencies]
dev = ["pytest>=9"]
"""


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script in a project of its own, on a machine without NVIDIA devices."""
    shutil.copy(REPO / "bootstrap.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "constraints.txt").write_text("rich==15.0.0\n")
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", tmp_path / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "accelerator", lambda: "cpu")
    monkeypatch.setattr(module, "DISK_GB", {"cpu": 0, "cuda": 0})
    return module


@pytest.fixture
def installs(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was installed, in order; the packages themselves are left out, the rest is real but for venv."""
    done: list[str] = []

    def venv(command: list[str], **options: object) -> SimpleNamespace:
        if command[1:3] != ["-m", "venv"]:
            return SimpleNamespace(returncode=0 if Path(command[0]).exists() else 1)
        bootstrap.PYTHON.parent.mkdir(parents=True)
        bootstrap.PYTHON.symlink_to(sys.executable)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(bootstrap, "subprocess", SimpleNamespace(run=venv, PIPE=-1, STDOUT=-2, DEVNULL=-3))
    monkeypatch.setattr(bootstrap, "install_packages", done.append)
    return done


def test_a_second_call_installs_nothing_until_something_changes(
    bootstrap: ModuleType, installs: list[str]
) -> None:
    assert bootstrap.main([]) == bootstrap.main([]) == 0
    assert installs == ["runtime"]
    assert bootstrap.main(["--dev"]) == bootstrap.main([]) == bootstrap.main(["--dev"]) == 0
    assert installs == ["runtime", "dev"]
    (bootstrap.ROOT / "constraints.txt").write_text("rich==15.0.1\n")
    assert bootstrap.main([]) == 0
    assert installs == ["runtime", "dev", "runtime"]


def test_two_calls_at_once_install_once(bootstrap: ModuleType, installs: list[str]) -> None:
    calls = [threading.Thread(target=bootstrap.main, args=([],)) for _ in range(4)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(20)
    assert installs == ["runtime"]


def test_an_installation_that_was_cut_short_is_made_again(
    bootstrap: ModuleType, installs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(what: str) -> None:
        (bootstrap.VENV / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install_packages", interrupted)
        assert bootstrap.main([]) == 130
    assert bootstrap.main([]) == 0
    assert installs == ["runtime"]
    assert not (bootstrap.VENV / "half").exists()
    assert "cut short" in capsys.readouterr().out


def test_what_pip_could_not_finish_goes_on_from_there(
    bootstrap: ModuleType, installs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def no_network(what: str) -> None:
        (bootstrap.VENV / "kept").touch()
        raise bootstrap.Stop("pip could not install: check the network")

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install_packages", no_network)
        assert bootstrap.main([]) == 2
    assert capsys.readouterr().err.splitlines() == ["setup: pip could not install: check the network"]
    assert bootstrap.main([]) == 0
    assert installs == ["runtime"] and (bootstrap.VENV / "kept").exists()


def test_a_venv_whose_python_is_gone_is_made_again(bootstrap: ModuleType, installs: list[str]) -> None:
    assert bootstrap.main([]) == 0
    bootstrap.PYTHON.unlink()
    bootstrap.PYTHON.symlink_to(bootstrap.ROOT / "no-such-python")
    assert bootstrap.main([]) == 0
    assert installs == ["runtime", "runtime"]
    assert bootstrap.PYTHON.exists()


def test_a_real_venv_is_made_with_pip_in_it(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "install_packages", lambda what: None)
    assert bootstrap.main([]) == 0
    assert bootstrap.works() and bootstrap.is_installed("runtime") and not bootstrap.is_installed("dev")
    assert not bootstrap.UNFINISHED.exists()


# ---------------------------------------------------------------- what can be in the way


def no_disk(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "DISK_GB", {"cpu": 10**6})


def no_venv_module(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_can_make_venvs", lambda: False)


def old_python(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "OLDEST", (99, 0))
    monkeypatch.setenv("PATH", "")


def not_ours(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (bootstrap.ROOT / ".venv").write_text("a file where the directory should be")


@pytest.mark.parametrize(
    ("obstacle", "names", "fix"),
    [
        (no_disk, "1000000 GB", "make room"),
        (no_venv_module, "venv module is missing", f"apt install python3.{sys.version_info[1]}-venv"),
        (old_python, "Python 3.11 or newer", "apt install python3.11-venv"),
        (not_ours, "cannot write to", "remove it"),
    ],
)
def test_what_is_in_the_way_is_one_sentence_with_the_fix(
    bootstrap: ModuleType,
    installs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    obstacle: Callable[[ModuleType, pytest.MonkeyPatch], None],
    names: str,
    fix: str,
) -> None:
    obstacle(bootstrap, monkeypatch)
    assert bootstrap.main([]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert names in sentence and fix in sentence
    assert installs == []


@pytest.mark.parametrize("ci", [False, True])
def test_programs_that_tests_drive_are_installed_and_servers_in_ci_alone(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, ci: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(bootstrap, "apt_install", lambda package: bool(asked.append(package)))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true" if ci else "")
    packages = ["iproute2", "faketime", "nginx-light", "caddy"]
    assert bootstrap.find_programs() == packages
    assert asked == (packages if ci else packages[:2])
    assert f"apt install {' '.join(packages)}" in capsys.readouterr().out
    monkeypatch.setattr(bootstrap, "apt_install", lambda package: True)
    assert bootstrap.find_programs() == ([] if ci else packages[2:])
    asked.clear()
    capsys.readouterr()
    monkeypatch.setattr(bootstrap, "shutil", SimpleNamespace(which=lambda program: f"/sbin/{program}"))
    assert bootstrap.find_programs() == [] == asked and capsys.readouterr().out == ""


def test_a_newer_python_on_path_takes_over(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newer = tmp_path / "python3.12"
    newer.write_text("#!/bin/sh\n")
    newer.chmod(0o755)
    monkeypatch.setattr(bootstrap, "OLDEST", (99, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    taken: list[str] = []

    def execv(path: str, argv: list[str]) -> None:
        taken.append(path)
        raise KeyboardInterrupt  # what follows is the other Python's business

    monkeypatch.setattr(os, "execv", execv)
    assert bootstrap.main([]) == 130
    assert taken == [str(newer)]


def test_an_old_python_can_read_it_as_far_as_the_sentence() -> None:
    ast.parse((REPO / "bootstrap.py").read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("asked", [True, False], ids=["fontconfig", "no fontconfig"])
def test_a_font_with_chinese_is_installed_once_and_its_lack_is_only_said(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture, asked: bool,
) -> None:  # fmt: skip
    """A `fc-list` of the test's own, which knows the font once it lies there."""
    fonts, programs = tmp_path / "fonts", tmp_path / "bin"
    programs.mkdir()
    if asked:
        program = f"#!/bin/sh\ntest -e {fonts}/truetype/wqy/a.ttc && echo WenQuanYi $1\n"
        (programs / "fc-list").write_text(program)
        (programs / "fc-list").chmod(0o755)
    wanted: list[str] = []

    def apt(package: str) -> bool:
        wanted.append(package)
        return False

    monkeypatch.setattr(bootstrap, "FONTS", fonts)
    monkeypatch.setattr(bootstrap, "apt_install", apt)
    monkeypatch.setenv("PATH", f"{programs}:/bin" if asked else str(programs))
    bootstrap.find_font()
    assert wanted == [bootstrap.FONT] and "sudo apt install" in capsys.readouterr().out
    (fonts / "truetype" / "wqy").mkdir(parents=True)
    (fonts / "truetype" / "wqy" / "a.ttc").touch()
    bootstrap.find_font()
    assert len(wanted) == 1 and capsys.readouterr().out == ""


def test_an_unknown_argument_is_named(bootstrap: ModuleType, capsys: pytest.CaptureFixture) -> None:
    assert bootstrap.main(["--tset"]) == 2
    assert "--tset" in capsys.readouterr().err


# ---------------------------------------------------------------- which torch


@pytest.mark.parametrize(
    ("accelerator", "offered", "from_index", "named"),
    [
        ("cpu", "2.14.0, 2.13.0+cpu, 2.13.0", False, "torch==2.13.0+cpu"),
        ("cpu", "2.14.0, 2.13.0, 2.12.0+cpu", True, "torch==2.13.0"),
        ("cpu", "", True, "torch==2.13.0"),
        ("cuda", "2.13.0+cpu, 2.13.0", False, "torch==2.13.0"),
    ],
)
def test_cuda_is_installed_only_where_there_is_an_nvidia_device(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    accelerator: str,
    offered: str,
    from_index: bool,
    named: str,
) -> None:
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.write_text(f"#!/bin/sh\necho 'torch (2.15.0)'\necho 'Available versions: {offered}'\n")
    bootstrap.PYTHON.chmod(0o755)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(bootstrap, "accelerator", lambda: accelerator)
    monkeypatch.setattr(bootstrap, "pip_install", lambda *arguments: calls.append(arguments))
    bootstrap.install_packages("dev")
    first_from_index = "--index-url" in calls[0]
    assert first_from_index == from_index
    if from_index:
        assert calls[0][-2:] == ("https://download.pytorch.org/whl/cpu", "torch==2.13.0")
    everything = calls[-2]
    assert named in everything and {"rich>=1", "pytest>=9"} <= set(everything)
    assert calls[-1][-2:] == ("-e", str(bootstrap.ROOT))
