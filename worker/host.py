"""What this host is and how busy it is: identity, GPUs (NVML), load (psutil)."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nanochat_client.types import Gpu, GpuStats, HostStats

FAKE_GPU_BYTES = 32 * 2**30


def host_id(base_dir: Path) -> str:
    """Stable over restarts, different for two services on one machine (they have two base directories)."""
    machine = Path("/etc/machine-id")
    identity = machine.read_text().strip() if machine.exists() else psutil.boot_time()
    return "h" + hashlib.sha256(f"{identity}:{base_dir.resolve()}".encode()).hexdigest()[:12]


class Host:
    """Reads GPUs and load. NVML is opened once; a host without NVIDIA's driver has no GPUs."""

    def __init__(self, base_dir: Path, fake_gpus: int = 0) -> None:
        self.base_dir, self._fake = base_dir, fake_gpus
        self._nvml: Any = None
        with suppress(Exception):  # no driver, no library, no permission: no GPUs
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        psutil.cpu_percent()  # the first call has nothing to compare with

    def gpus(self) -> list[Gpu]:
        if self._fake:
            return [Gpu(index=i, name="fake GPU", memory_bytes=FAKE_GPU_BYTES) for i in range(self._fake)]
        found = []
        for index, handle in self._handles():
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            name, uuid = self._nvml.nvmlDeviceGetName(handle), self._nvml.nvmlDeviceGetUUID(handle)
            found.append(Gpu(index=index, name=str(name), memory_bytes=int(memory.total), uuid=str(uuid)))
        return found

    def stats(self) -> HostStats:
        memory = psutil.virtual_memory()
        disk = shutil.disk_usage(self.base_dir)
        return HostStats(
            cpu=psutil.cpu_percent() / 100,
            cores=psutil.cpu_count() or 1,
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            gpus=[self._gpu_stats(index, handle) for index, handle in self._handles()],
        )

    def _handles(self) -> list[tuple[int, Any]]:
        if self._nvml is None:
            return []
        return [(i, self._nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(self._nvml.nvmlDeviceGetCount())]

    def _gpu_stats(self, index: int, handle: Any) -> GpuStats:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        stats = GpuStats(
            index=index,
            name=str(nvml.nvmlDeviceGetName(handle)),
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
        )
        with suppress(nvml.NVMLError):  # not every card has every sensor
            stats.utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        with suppress(nvml.NVMLError):
            stats.power_w = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        with suppress(nvml.NVMLError):
            stats.temperature_c = float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        return stats
