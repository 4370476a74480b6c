"""Who this host is, and what it says about itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest

from tests.services import eventually
from worker.host import Host, host_id, interface
from worker.settings import WorkerSettings


def test_two_services_on_one_machine_are_two_hosts_and_each_stays_the_same(tmp_path: Path) -> None:
    def named(place: Path, **more: str) -> str:
        return host_id(WorkerSettings(base_dir=place, **more))  # type: ignore[arg-type]

    one, other = named(tmp_path / "one"), named(tmp_path / "other")
    assert one != other
    assert named(tmp_path / "x" / ".." / "one") == one
    assert named(tmp_path / "one", host_id="rack-3") == "rack-3"


def test_an_address_is_on_the_interface_that_has_it_and_loopback_on_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {
        "lo": [SimpleNamespace(address="127.0.0.1"), SimpleNamespace(address="::1")],
        "eth0": [SimpleNamespace(address="02:42:ac:11:00:02"), SimpleNamespace(address="10.1.0.2")],
        "eth1": [SimpleNamespace(address="fe80::1%eth1"), SimpleNamespace(address="fd00::2")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: there)
    assert [interface(of) for of in ("10.1.0.2", "fd00::2", "fe80::1")] == ["eth0", "eth1", "eth1"]
    assert [interface(of) for of in ("127.0.0.1", "127.0.0.2", "10.1.0.3", "no-such-host.invalid")] == [
        ""
    ] * 4


def test_load_is_within_its_bounds(tmp_path: Path) -> None:
    stats = Host(tmp_path).stats()
    assert 0 <= stats.cpu <= 1 and stats.cores >= 1
    assert 0 < stats.memory_used_bytes < stats.memory_total_bytes
    assert 0 < stats.disk_free_bytes <= stats.disk_total_bytes


def test_declared_gpus_are_offered_as_many_as_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.index for gpu in Host(tmp_path, fake_gpus=2).gpus()] == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in Host(tmp_path, fake_gpus=2).gpus()] == [1]


class Nvml(SimpleNamespace):
    """NVIDIA's library with one card that has no power sensor, in the shape of pynvml."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    pids: ClassVar[list[int]] = []

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA GeForce RTX 5090"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return "GPU-1"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=32 << 30, used=1 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        raise self.NVMLError

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 61

    def nvmlDeviceGetClockInfo(self, handle: int, which: int) -> int:
        if which == self.NVML_CLOCK_MEM:
            raise self.NVMLError
        return 2400

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return 0x1 | 0x4 | 0x40

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=5 << 20) for pid in self.pids]


def test_a_card_is_described_as_far_as_it_has_sensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    host = Host(tmp_path)
    (gpu,) = host.gpus()
    assert (gpu.name, gpu.memory_bytes, gpu.uuid) == ("NVIDIA GeForce RTX 5090", 32 << 30, "GPU-1")
    (stats,) = host.stats().gpus
    assert (stats.utilization, stats.memory_used_bytes, stats.temperature_c) == (0.5, 1 << 30, 61)
    assert stats.power_w is None and stats.clock_memory_mhz is None
    assert (stats.clock_sm_mhz, stats.throttle) == (2400, ["power_cap", "hardware_thermal"])


def test_a_process_on_a_gpu_that_is_no_run_of_ours_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path)},
    )
    try:
        monkeypatch.setattr(Nvml, "pids", [ours.pid, os.getpid(), 2**22 + 1])
        monkeypatch.setitem(sys.modules, "pynvml", Nvml())
        host = Host(tmp_path)
        eventually(lambda: psutil.Process(ours.pid).environ().get("NANOCHAT_BASE_DIR"))
        (stats,) = host.stats().gpus
    finally:
        ours.communicate(b"\n")
    me = psutil.Process().name()
    assert [(p.pid, p.name) for p in stats.foreign] == [(os.getpid(), me), (2**22 + 1, "")]


def test_the_base_directory_may_be_written_as_people_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "here")
    assert WorkerSettings().base_dir == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "~/there")
    assert WorkerSettings().base_dir == tmp_path / "there"


def test_the_token_comes_from_the_environment_else_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        WorkerSettings().token()
    (tmp_path / "worker.token").write_text("from-the-file\n")
    assert WorkerSettings().token() == "from-the-file"
    monkeypatch.setenv("NANOCHAT_WORKER_TOKEN", "from-the-environment")
    assert WorkerSettings().token() == "from-the-environment"
