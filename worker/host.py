"""What this host is and how busy it is: identity, GPUs (NVML), load (psutil)."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nanochat_client.types import Gpu, GpuProcess, GpuStats, HostStats
from worker.processes import BASE_DIR
from worker.settings import WorkerSettings

FAKE_GPU_BYTES = 32 * 2**30


def host_id(settings: WorkerSettings) -> str:
    """Stable over restarts, different for two services on one machine (they have two base directories).

    Not covered: containers made from one image share its machine id; NANOCHAT_HOST_ID tells them apart.
    """
    if settings.host_id:
        return settings.host_id
    machine = Path("/etc/machine-id")
    identity = machine.read_text().strip() if machine.exists() else psutil.boot_time()
    return "h" + hashlib.sha256(f"{identity}:{settings.base_dir.resolve()}".encode()).hexdigest()[:12]


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
        stats.foreign = self._foreign(handle)
        return stats

    def _foreign(self, handle: Any) -> list[GpuProcess]:
        """Who computes on the GPU without being a run's or an engine's process of this base directory."""
        found = []
        with suppress(self._nvml.NVMLError):
            for entry in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if (name := self._stranger(entry.pid)) is not None:
                    memory = entry.usedGpuMemory  # None where the driver does not tell
                    found.append(GpuProcess(pid=entry.pid, name=name, memory_bytes=memory))
        return found

    def _stranger(self, pid: int) -> str | None:
        """The command of a process that is not ours; None for ours. Every process we start knows our base."""
        try:
            process = psutil.Process(pid)
            ours = process.environ().get(BASE_DIR) == str(self.base_dir)
            return None if ours else str(process.name())
        except psutil.AccessDenied:
            return str(psutil.Process(pid).name())  # another user's
        except psutil.Error:
            return ""  # in another container: NVML counts pids of the host
