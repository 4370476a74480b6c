"""Numbers for Prometheus about the hosts that train and their GPUs: what their workers said last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from server.models import Worker

#: name and help of a gauge → the field of GpuStats
OF_GPU = {
    ("nanochat_gpu_utilization_ratio", "How busy the GPU is, 0 to 1."): "utilization",
    ("nanochat_gpu_memory_used_bytes", "Memory in use."): "memory_used_bytes",
    ("nanochat_gpu_memory_total_bytes", "Memory there is."): "memory_total_bytes",
    ("nanochat_gpu_power_watts", "Power drawn."): "power_w",
    ("nanochat_gpu_temperature_celsius", "Temperature."): "temperature_c",
    ("nanochat_gpu_clock_sm_mhz", "Clock of the multiprocessors."): "clock_sm_mhz",
    ("nanochat_gpu_clock_memory_mhz", "Clock of the memory."): "clock_memory_mhz",
}
OF_HOST = {
    ("nanochat_host_cpu_ratio", "How busy all cores are, 0 to 1."): "cpu",
    ("nanochat_host_memory_used_bytes", "Memory in use."): "memory_used_bytes",
    ("nanochat_host_memory_total_bytes", "Memory there is."): "memory_total_bytes",
    ("nanochat_host_disk_free_bytes", "Room on the disk of the base directory."): "disk_free_bytes",
    ("nanochat_host_disk_total_bytes", "Size of that disk."): "disk_total_bytes",
}


class HostNumbers:
    """Gauges with one label set per worker that is alive: who leaves takes its numbers along."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauges(table: dict[tuple[str, str], str], *labels: str) -> dict[str, Gauge]:
            return {field: Gauge(*names, labels, registry=registry) for names, field in table.items()}

        self._of_host = gauges(OF_HOST, "host", "worker")
        self._of_gpu = gauges(OF_GPU, "host", "worker", "gpu")
        self._throttled = Gauge(
            "nanochat_gpu_throttled", "1 for every reason why a clock is lower than it could be.",
            ("host", "worker", "gpu", "reason"), registry=registry,
        )  # fmt: skip

    def set(self, alive: Sequence[Worker]) -> None:
        for gauge in (*self._of_host.values(), *self._of_gpu.values(), self._throttled):
            gauge.clear()
        for worker in alive:
            stats: dict[str, Any] = worker.stats or {}
            _fill(self._of_host, (worker.host, worker.id), stats)
            for gpu in stats.get("gpus", []):
                labels = (worker.host, worker.id, str(gpu["index"]))
                _fill(self._of_gpu, labels, gpu)
                for reason in gpu.get("throttle") or ():
                    self._throttled.labels(*labels, reason).set(1)


def _fill(gauges: dict[str, Gauge], labels: tuple[str, ...], stats: dict[str, Any]) -> None:
    for field, gauge in gauges.items():
        if stats.get(field) is not None:
            gauge.labels(*labels).set(stats[field])
