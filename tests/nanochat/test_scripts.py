"""The doors: `python scripts/x.py` and `python -m scripts.x`, flags, presets, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.paths import repo_dir
from nanochat.stages import STAGES
from tests.nanochat.trainers import Home

SCRIPTS_DIR = repo_dir() / "scripts"
STAGE_OF = {stage.script.removeprefix("scripts."): stage for stage in STAGES.values()}
SCRIPTS = list(STAGE_OF)


def run_script(argv: list[str], base: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(repo_dir()) if "-m" in argv else ""
    environment["NANOCHAT_KERNEL_DIR"] = os.environ["NANOCHAT_KERNEL_DIR"]
    return subprocess.run(
        [sys.executable, *argv],
        cwd=cwd or base.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("as_module", [True, False], ids=["module", "file"])
def test_help_lists_every_flag_and_needs_no_torch(tmp_path: Path, script: str, as_module: bool) -> None:
    door = ["-m", f"scripts.{script}"] if as_module else [str(SCRIPTS_DIR / f"{script}.py")]
    done = run_script(["-X", "importtime", *door, "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(f"--{name}=" in done.stdout for name in STAGE_OF[script].config.model_fields)
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_flag_exits_2_and_names_the_nearest(tmp_path: Path, script: str) -> None:
    done = run_script(["-m", f"scripts.{script}", "--sed=3"], tmp_path)
    assert done.returncode == 2 and "--seed" in done.stderr


def test_a_script_runs_from_another_directory(tmp_path: Path) -> None:
    done = run_script([str(repo_dir() / "scripts" / "chat_eval.py")], tmp_path / "base", cwd=tmp_path)
    assert done.returncode == 1 and "train stage" in done.stderr


def test_the_tokenizer_reads_data_dir_and_writes_output_dir(tmp_path: Path) -> None:
    home = Home(tmp_path / "base")
    target = tmp_path / "out"
    argv = [
        str(SCRIPTS_DIR / "tok_train.py"),
        "--vocab-size",
        "280",
        f"--data_dir={home.corpus}",
        f"--output_dir={target}",
    ]
    done = run_script(argv, home.base)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in target.iterdir()) == [
        "manifest.json",
        "origin.json",
        "token_bytes.pt",
        "tokenizer.json",
    ]
    assert "280 tokens" in done.stdout and not (home.base / "tokenizer").exists()


PATH = str(SCRIPTS_DIR / "base_train.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([PATH], ["mine.py", "--num_iterations=2"]),
        (["-m", "scripts.base_train"], ["--config", "mine.py", "--num-iterations", "2"]),
        ([*TORCHRUN, PATH], ["mine.py", "--num_iterations=2"]),
    ],
    ids=["file", "module", "torchrun"],
)
def test_a_preset_and_flags_train_outside_the_service(
    tmp_path: Path, before: list[str], after: list[str]
) -> None:
    home, work = Home(tmp_path / "base"), tmp_path / "work"
    work.mkdir()
    preset = work / "mine.py"
    lines = [
        f"{key} = {value!r}" for key, value in home.base_config(num_iterations=500, run="dual_gpu_x").items()
    ]
    preset.write_text("\n".join(lines))
    done = run_script([*before, *after], home.base, work)
    assert done.returncode == 0, done.stderr
    assert (home.base / "base_checkpoints" / "d1" / "step_000002" / "manifest.json").is_file()
    assert (home.base / "base_checkpoints" / "latest.pt").resolve().name == "step_000002"
    (log,) = (home.base / "logs").glob("train_dual_gpu_x_*.log")
    assert "step 2/2" in log.read_text()
    (beside,) = (work / "logs").glob("train_dual_gpu_x_*.log")  # for `tail -f` from where it was started
    assert beside.resolve() == log
