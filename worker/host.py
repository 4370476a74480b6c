"""What this host is and how busy it is: identity, GPUs (NVML), load (psutil)."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from nanochat_client.types import Gpu, GpuProcess, HostStats
from worker import gpus
from worker.processes import BASE_DIR
from worker.settings import WorkerSettings


def host_id(settings: WorkerSettings) -> str:
    """Stable over restarts, different for two services on one machine (they have two base directories).

    Not covered: containers made from one image share its machine id; NANOCHAT_HOST_ID tells them apart.
    """
    if settings.host_id:
        return settings.host_id
    machine = Path("/etc/machine-id")
    identity = machine.read_text().strip() if machine.exists() else psutil.boot_time()
    return "h" + hashlib.sha256(f"{identity}:{settings.base_dir.resolve()}".encode()).hexdigest()[:12]


def address(settings: WorkerSettings) -> str:
    """Where other nodes reach this host: as configured, else the address that leads to the server.

    Empty for a server on this machine: nobody else could use a loopback address.
    """
    if settings.node_address:
        return settings.node_address
    parts = urlsplit(settings.url)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting sends nothing
            probe.connect((parts.hostname or "", parts.port or 80))
            found = str(probe.getsockname()[0])
    except OSError:
        return ""
    return "" if ipaddress.ip_address(found).is_loopback else found


def interface(of: str) -> str:
    """The network interface that has the address `of`; a name stands for its addresses.

    Empty for loopback, and for an address that no interface of this host has (behind NAT, in a container).
    """
    try:
        wanted = {str(found[4][0]) for found in socket.getaddrinfo(of, None)}
    except OSError:
        return ""
    for name, addresses in psutil.net_if_addrs().items():
        here = {item.address.partition("%")[0] for item in addresses} & wanted
        if here and not any(ipaddress.ip_address(text).is_loopback for text in here):
            return str(name)
    return ""


class Host:
    """Reads load and GPUs. Both are opened once; GPUs that CUDA_VISIBLE_DEVICES hides are not there."""

    def __init__(self, base_dir: Path, fake_gpus: int = 0) -> None:
        self.base_dir = base_dir
        self._gpus = gpus.source(fake_gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        psutil.cpu_percent()  # the first call has nothing to compare with

    def gpus(self) -> list[Gpu]:
        return self._gpus.gpus()

    def stats(self) -> HostStats:
        memory = psutil.virtual_memory()
        disk = shutil.disk_usage(self.base_dir)
        cards = self._gpus.stats()
        for card in cards:
            card.foreign = self._foreign(card.index)
        return HostStats(
            cpu=psutil.cpu_percent() / 100,
            cores=psutil.cpu_count() or 1,
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            gpus=cards,
        )

    def _foreign(self, index: int) -> list[GpuProcess]:
        """Who computes on the GPU without being a run's or an engine's process of this base directory."""
        found = []
        for process in self._gpus.processes(index):
            if (name := self._stranger(process.pid)) is not None:
                found.append(process.model_copy(update={"name": name}))
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
