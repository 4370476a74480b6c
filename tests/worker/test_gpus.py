"""The contract of GPU sources: held by declared ones, by NVML's answers, and by a driver if there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.worker.test_host import Nvml
from worker.gpus import THROTTLE, DeclaredGpus, GpuSource, NvmlGpus, source


@pytest.fixture(params=["declared", "answers of NVML", pytest.param("driver", marks=pytest.mark.gpu)])
def gpu_source(request: pytest.FixtureRequest) -> Iterator[GpuSource]:
    if request.param == "declared":
        yield DeclaredGpus(2)
    elif request.param == "answers of NVML":
        yield NvmlGpus(Nvml(pids=[4711]))
    else:
        found = source()
        if not found.gpus():
            pytest.skip("needs a GPU with NVIDIA's driver")
        yield found


def test_every_list_speaks_of_the_same_cards(gpu_source: GpuSource) -> None:
    gpus, stats = gpu_source.gpus(), gpu_source.stats()
    assert gpus and [gpu.index for gpu in gpus] == list(range(len(gpus)))
    assert [(s.index, s.name, s.memory_total_bytes) for s in stats] == [
        (g.index, g.name, g.memory_bytes) for g in gpus
    ]


def test_what_is_measured_is_within_its_bounds_or_none(gpu_source: GpuSource) -> None:
    for stats in gpu_source.stats():
        assert 0 <= stats.memory_used_bytes <= stats.memory_total_bytes
        assert stats.utilization is None or 0 <= stats.utilization <= 1
        assert stats.power_w is None or 0 <= stats.power_w < 5000
        assert stats.temperature_c is None or -50 < stats.temperature_c < 150
        for clock in (stats.clock_sm_mhz, stats.clock_memory_mhz):
            assert clock is None or 0 <= clock < 50_000
        assert stats.throttle is None or set(stats.throttle) <= set(THROTTLE.values())
        assert stats.foreign == []


def test_processes_are_listed_by_card(gpu_source: GpuSource) -> None:
    for gpu in gpu_source.gpus():
        for process in gpu_source.processes(gpu.index):
            assert process.pid > 0 and (process.memory_bytes is None or process.memory_bytes >= 0)


class Four(Nvml):
    """Four of the same card."""

    def nvmlDeviceGetCount(self) -> int:
        return 4

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}abc"


@pytest.mark.parametrize(
    ("chosen", "offered"),
    [(None, [0, 1, 2, 3]), ("3,2", [2, 3]), ("GPU-1,GPU-3abc", [1, 3]), ("", []), ("-1", []), ("1,9,2", [1])],
)
def test_hidden_gpus_are_not_offered_and_the_others_keep_their_index(
    chosen: str | None, offered: list[int]
) -> None:
    found = NvmlGpus(Four(), chosen)
    assert [gpu.index for gpu in found.gpus()] == [stats.index for stats in found.stats()] == offered
    assert [gpu.uuid for gpu in found.gpus()] == [f"GPU-{i}abc" for i in offered]


def test_declared_gpus_can_be_hidden_as_well() -> None:
    found = DeclaredGpus(4, "3,2")
    assert [gpu.index for gpu in found.gpus()] == [stats.index for stats in found.stats()] == [2, 3]


def test_a_host_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDriver(Nvml):
        def nvmlInit(self) -> None:
            raise self.NVMLError

    monkeypatch.setitem(sys.modules, "pynvml", NoDriver())
    assert source().gpus() == source().stats() == []
    assert len(source(3).gpus()) == len(source(3).stats()) == 3


def test_a_library_older_than_a_question_says_nothing_about_it() -> None:
    class Older(Nvml):
        nvmlDeviceGetCurrentClocksEventReasons = property()  # type: ignore[assignment]

    [stats] = NvmlGpus(Older()).stats()
    assert stats.throttle is None and stats.clock_sm_mhz == 2400
