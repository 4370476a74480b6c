"""Workers, their hosts and GPUs, the service itself."""

from __future__ import annotations

from datetime import datetime

from nanochat_client.types.wire import Wire


class Gpu(Wire):
    index: int
    name: str
    memory_bytes: int
    uuid: str = ""


class GpuProcess(Wire):
    pid: int
    name: str = ""
    """Its command; empty when it lives in another container."""
    memory_bytes: int | None = None


class GpuStats(Wire):
    index: int
    name: str
    utilization: float | None = None
    """0…1"""
    memory_used_bytes: int
    memory_total_bytes: int
    power_w: float | None = None
    temperature_c: float | None = None
    clock_sm_mhz: int | None = None
    clock_memory_mhz: int | None = None
    throttle: list[str] | None = None
    """Why its clock is lower than it could be: power_cap, hardware_thermal, …; null: it does not tell."""
    foreign: list[GpuProcess] = []
    """Processes that hold the GPU and belong to no run of this service."""


class HostStats(Wire):
    cpu: float
    """Utilisation of all cores, 0…1."""
    cores: int
    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    gpus: list[GpuStats] = []


class Worker(Wire):
    id: str
    host_id: str = ""
    """What it calls itself: NANOCHAT_HOST_ID, or made from the machine's id and the base directory."""
    host: str
    name: str
    alive: bool
    slots: int
    gpus: list[Gpu] = []
    busy_gpus: list[int] = []
    runs: list[str] = []
    stats: HostStats | None = None
    registered_at: datetime


class System(Wire):
    version: str
    workers: list[Worker]
    queued: int
    running: int
    database: str
    auth: bool
