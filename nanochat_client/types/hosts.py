"""Workers, their hosts and GPUs, the service itself."""

from __future__ import annotations

from datetime import datetime

from nanochat_client.types.wire import Count, Real, Wire


class Gpu(Wire):
    index: Count
    name: str
    memory_bytes: Count
    uuid: str = ""


class GpuProcess(Wire):
    pid: Count
    name: str = ""
    """Its command; empty when it lives in another container."""
    memory_bytes: Count | None = None


class GpuStats(Wire):
    index: Count
    name: str
    utilization: Real | None = None
    """0…1"""
    memory_used_bytes: Count
    memory_total_bytes: Count
    power_w: Real | None = None
    temperature_c: Real | None = None
    clock_sm_mhz: Count | None = None
    clock_memory_mhz: Count | None = None
    throttle: list[str] | None = None
    """Why its clock is lower than it could be: power_cap, hardware_thermal, …; null: it does not tell."""
    foreign: list[GpuProcess] = []
    """Processes that hold the GPU and belong to no run of this service."""


class HostStats(Wire):
    cpu: Real
    """Utilisation of all cores, 0…1."""
    cores: Count
    memory_used_bytes: Count
    memory_total_bytes: Count
    disk_free_bytes: Count
    disk_total_bytes: Count
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
