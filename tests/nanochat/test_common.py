"""setup_training: device, compute type, seeds, logs, signals, and a reason for every failure."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import BrokenCheckpoint
from nanochat.common import resolve_device, resolve_dtype, setup_training
from nanochat.configurator import ConfigError
from nanochat.errors import DataError, NanLoss
from nanochat.failures import reason_of, write_failure
from nanochat.hardware import cpu_has_bfloat16
from nanochat.paths import repo_dir
from nanochat.stages import Problem, StageConfig

CPU = torch.device("cpu")
TEMPLATE = """
import argparse
from nanochat.configurator import Configurator
from nanochat.common import setup_training

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=str, required=True)
    parser.add_argument("--checkpoint", type=str)
    args = parser.parse_args()
    config = Configurator(args.config)
    setup_training()
    print(f"depth is {config.depth}")

if __name__ == "__main__":
    main()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    for name in ("NANOCHAT_ATTEMPT_DIR", "NANOCHAT_DTYPE", "RANK", "WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(code: str, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "NANOCHAT_BASE_DIR": os.environ["NANOCHAT_BASE_DIR"]}
    kept |= {"PYTHONPATH": str(repo_dir()), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *argv], env=kept, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_script_guides_template_runs_as_written(place: Path) -> None:
    done = run_python(TEMPLATE, "--config", str(repo_dir() / "configs" / "debug_cpu.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "depth is 2" in done.stdout


def test_alone_nothing_is_distributed_and_the_seed_holds(place: Path) -> None:
    numbers = []
    for _ in range(2):
        with setup_training(StageConfig(seed=5)) as world:
            assert (world.rank, world.size, world.is_master) == (0, 1, True)
            assert not torch.distributed.is_initialized()
            assert world.sum(2.0, 3.0) == [2.0, 3.0] and world.gather("x") == ["x"]
            world.barrier()
            numbers.append(torch.rand(1).item())
    assert numbers[0] == numbers[1]


def test_output_is_kept_in_a_log_that_both_directories_show(place: Path) -> None:
    with setup_training(StageConfig(run="dual gpu")) as world:
        world.say("a line to find again")
    (kept,) = (place / "base" / "logs").glob("train_dual-gpu_*.log")
    (linked,) = (place / "logs").glob("train_dual-gpu_*.log")
    assert kept.read_text() == "a line to find again\n" and linked.resolve() == kept
    print("after the end")
    assert "after the end" not in kept.read_text()


def test_in_the_service_the_link_leads_to_the_attempts_log(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_ATTEMPT_DIR", str(place / "attempt"))
    with setup_training(StageConfig(run="x")) as world:
        world.warn("look here", step=3)
    (linked,) = (place / "logs").glob("train_x_*.log")
    assert linked.readlink().name == "run.log"
    event = json.loads((place / "attempt" / "events.jsonl").read_text())
    assert (event["kind"], event["message"], event["step"]) == ("warning", "look here", 3)


def test_a_log_that_cannot_be_written_stops_nothing(place: Path) -> None:
    (place / "base").write_text("a file where a directory should be")
    (place / "logs").write_text("and here")
    with setup_training() as world:
        world.say("still alive")


def test_the_first_signal_asks_to_stop_and_handlers_come_back(place: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with setup_training() as world:
        assert not world.stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert world.stop
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_ctrl_c_means_now(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt), setup_training():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_dtype_config_wins_over_environment_and_both_over_the_hardware(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert resolve_dtype("bfloat16", CPU) == torch.bfloat16
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("bfloat16", CPU) == torch.bfloat16
    monkeypatch.setenv("NANOCHAT_DTYPE", "float16")
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        resolve_dtype("auto", CPU)
    monkeypatch.setenv("NANOCHAT_DTYPE", "")
    assert resolve_dtype("auto", CPU) == (torch.bfloat16 if cpu_has_bfloat16() else torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_a_config_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_device("auto", 0) == CPU
    monkeypatch.setenv("NANOCHAT_ATTEMPT_DIR", str(place))
    with pytest.raises(ConfigError, match="no NVIDIA GPU"):
        setup_training(StageConfig(device="cuda"))
    assert json.loads((place / "failure.json").read_text())["reason"] == "config_error"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_taken_when_there_is_one() -> None:
    assert resolve_device("auto", 0) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError([Problem("/x", "no")]), "config_error"),
        (DataError("no"), "data_error"),
        (BrokenCheckpoint("no"), "data_error"),
        (FileNotFoundError("no"), "data_error"),
        (NanLoss("no"), "nan_loss"),
        (torch.OutOfMemoryError("no"), "cuda_oom"),
        (MemoryError(), "host_oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 5 bytes"), "host_oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (PermissionError(errno.EACCES, "no"), "internal"),
        (ZeroDivisionError("no"), "internal"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_failure_has_a_reason(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_reasons_are_those_of_the_wire() -> None:
    from nanochat_client.types import Reason

    for word in ("config_error", "data_error", "nan_loss", "cuda_oom", "host_oom", "disk_full", "internal"):
        assert Reason(word)


def test_the_first_failure_is_believed(place: Path) -> None:
    assert write_failure(place, DataError("the cause"))
    assert not write_failure(place, RuntimeError("connection closed by peer"))
    assert json.loads((place / "failure.json").read_text()) == {
        "reason": "data_error",
        "message": "the cause",
    }


@pytest.mark.parametrize("use", ["with setup_training(): ", "setup_training(); "])
def test_an_exception_leaves_its_reason_whether_with_or_plain_call(place: Path, use: str) -> None:
    code = f"from nanochat.common import setup_training\n{use}exec('raise MemoryError(42)')"
    done = run_python(code, NANOCHAT_ATTEMPT_DIR=str(place))
    assert done.returncode == 1 and "MemoryError: 42" in done.stderr
    assert json.loads((place / "failure.json").read_text()) == {"reason": "host_oom", "message": "42"}
