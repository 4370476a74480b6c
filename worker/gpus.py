"""The GPUs of this host, behind one seam: NVIDIA's library, or as many as somebody declared.

Those that CUDA_VISIBLE_DEVICES hides are not there: so the GPUs of a host are divided among several workers,
and a scheduler says which it has given. tests/worker/test_gpus.py holds both to the same contract.

Not covered: cards of other makers; MIG slices. Indices are the driver's (CUDA_DEVICE_ORDER=PCI_BUS_ID).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from nanochat.hardware import visible
from nanochat_client.types import Gpu, GpuProcess, GpuStats

T = TypeVar("T")
FAKE_GPU_BYTES = 32 * 2**30
#: what NVML's bits say about a clock that is lower than it could be; idle is none of them
THROTTLE = {
    0x002: "application_clocks", 0x004: "power_cap", 0x008: "hardware", 0x010: "sync_boost",
    0x020: "software_thermal", 0x040: "hardware_thermal", 0x080: "power_brake", 0x100: "display_clocks",
}  # fmt: skip


class GpuSource(Protocol):
    """Every list is in order of index, and an index is the same card in each of them, hidden ones or not."""

    def gpus(self) -> list[Gpu]:
        """What there is."""
        ...

    def stats(self) -> list[GpuStats]:
        """How busy each is; a sensor that a card does not have is None. `foreign` is left empty."""
        ...

    def processes(self, index: int) -> list[GpuProcess]:
        """Who computes on a card; nobody where the driver does not tell."""
        ...


def source(declared: int = 0, chosen: str | None = None) -> GpuSource:
    """Of this host: `declared` ones that do not exist, else those of the driver, else none.

    `chosen`: CUDA_VISIBLE_DEVICES; None: all of them.
    """
    if declared:
        return DeclaredGpus(declared, chosen)
    with suppress(Exception):  # no driver, no library, no permission: no GPUs
        import pynvml

        return NvmlGpus(pynvml, chosen)
    return DeclaredGpus(0)


class DeclaredGpus:
    """GPUs that do not exist and never have anything to do (tests and demonstrations)."""

    def __init__(self, count: int, chosen: str | None = None) -> None:
        self._indices = sorted(visible([f"fake-{i}" for i in range(count)], chosen))

    def gpus(self) -> list[Gpu]:
        return [Gpu(index=i, name="fake GPU", memory_bytes=FAKE_GPU_BYTES) for i in self._indices]

    def stats(self) -> list[GpuStats]:
        return [
            GpuStats(
                index=gpu.index, name=gpu.name, utilization=0.0, memory_used_bytes=0,
                memory_total_bytes=gpu.memory_bytes, power_w=0.0, temperature_c=25.0, clock_sm_mhz=0,
                clock_memory_mhz=0, throttle=[],
            )
            for gpu in self.gpus()
        ]  # fmt: skip

    def processes(self, index: int) -> list[GpuProcess]:
        return []


class NvmlGpus:
    """Through pynvml, opened once. Raises its NVMLError where there is no driver."""

    def __init__(self, nvml: Any, chosen: str | None = None) -> None:
        nvml.nvmlInit()
        self._nvml = nvml
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        self._indices = sorted(visible([str(nvml.nvmlDeviceGetUUID(h)) for h in handles], chosen))

    def gpus(self) -> list[Gpu]:
        found = []
        for index, handle in self._handles():
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            name, uuid = self._nvml.nvmlDeviceGetName(handle), self._nvml.nvmlDeviceGetUUID(handle)
            found.append(Gpu(index=index, name=str(name), memory_bytes=int(memory.total), uuid=str(uuid)))
        return found

    def stats(self) -> list[GpuStats]:
        return [self._stats(index, handle) for index, handle in self._handles()]

    def processes(self, index: int) -> list[GpuProcess]:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        running = self._asked(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
        # usedGpuMemory is None where the driver does not tell
        return [GpuProcess(pid=entry.pid, memory_bytes=entry.usedGpuMemory) for entry in running]

    def _handles(self) -> list[tuple[int, Any]]:
        return [(i, self._nvml.nvmlDeviceGetHandleByIndex(i)) for i in self._indices]

    def _stats(self, index: int, handle: Any) -> GpuStats:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        busy = self._asked(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        power_mw = self._asked(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        celsius = self._asked(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        bits = self._asked(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        return GpuStats(
            index=index,
            name=str(nvml.nvmlDeviceGetName(handle)),
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            utilization=None if busy is None else busy / 100,
            power_w=None if power_mw is None else power_mw / 1000,
            temperature_c=None if celsius is None else float(celsius),
            clock_sm_mhz=self._asked(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
            clock_memory_mhz=self._asked(
                lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))
            ),
            throttle=None if bits is None else [name for bit, name in THROTTLE.items() if bits & bit],
        )

    def _asked(self, call: Callable[[], T]) -> T | None:
        """What NVML says; None where a card has no such sensor or the library no such question."""
        try:
            return call()
        except (self._nvml.NVMLError, AttributeError):
            return None
