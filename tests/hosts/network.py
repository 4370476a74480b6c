"""Hosts with an address each on one machine: Linux network namespaces, each on a cable to one switch.

    hub 10.213.0.1 (the switch; server, queue and storage run here) ── cables ── eth0 of every other host

A namespace lasts as long as the process that holds it, and its cables last as long as it does. So nothing has
a name or an address outside, two networks never meet, and nothing is left behind, also by tests that are
killed. Hosts see each other's processes and files, and have no names in DNS, as on many a real network.
Not covered: slow or lossy cables, IPv6, firewalls.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.services import eventually
from worker import processes

CLONE_NEWNET = 0x40000000
HUB = "hub"
#: what a network needs of the machine, tried where it would be lost again
PROBE = "ip link add type bridge && ip link add type veth"


def why_not() -> str:
    """Why this machine cannot have such a network; "" when it can."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)}: apt install iproute2 util-linux"
    tried = subprocess.run(["unshare", "--net", "--uts", "sh", "-c", PROBE], capture_output=True, text=True)
    if tried.returncode == 0:
        return ""
    return f"needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN, for network namespaces: {tried.stderr.strip()}"


class Host:
    """A namespace of interfaces, addresses and ports, with a host name of its own."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        script = f"echo {name} > /proc/sys/kernel/hostname && exec sleep infinity"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            preexec_fn=processes.die_with_parent,
        )
        eventually(self._is_there, timeout_s=10)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def _is_there(self) -> bool:
        assert self._holder.poll() is None, f"no namespace for {self.name}"
        return Path(f"/proc/{self.pid}/cmdline").read_bytes().startswith(b"sleep")

    def command(self, *argv: str) -> list[str]:
        """What runs `argv` on this host. It replaces itself by `argv`: the process is the program's own."""
        place = f"/proc/{self.pid}/ns"
        return ["nsenter", f"--net={place}/net", f"--uts={place}/uts", "--", *argv]

    def run(self, *argv: str) -> str:
        done = subprocess.run(self.command(*argv), capture_output=True, text=True)
        assert done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stderr}"
        return done.stdout

    def enter(self) -> None:
        """Sockets that the calling thread makes from now on are this host's. Raises OSError."""
        with Path(f"/proc/{self.pid}/ns/net").open("rb") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))

    def thread(self) -> ThreadPoolExecutor:
        """One thread that lives on this host."""
        return ThreadPoolExecutor(max_workers=1, initializer=self.enter)

    def client(self, url: str, bearer: str) -> httpx.Client:
        """HTTP from this host, for a program that is not on it."""
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx.Client(base_url=url, headers=headers, timeout=30, transport=_From(self))

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Network:
    """The hub and further hosts, all of them connected."""

    def __init__(self, names: Sequence[str]) -> None:
        self.hub = Host(HUB, "10.213.0.1")
        self.hosts: dict[str, Host] = {}
        try:
            self.hub.run("ip", "link", "add", "switch", "type", "bridge")
            self.hub.run("ip", "addr", "add", f"{self.hub.address}/24", "dev", "switch")
            self.hub.run("ip", "link", "set", "switch", "up")
            for number, name in enumerate(names, start=2):
                self.hosts[name] = Host(name, f"10.213.0.{number}")
                self._connect(self.hosts[name])
        except BaseException:
            self.close()
            raise

    def _connect(self, host: Host) -> None:
        here = f"to-{host.name}"
        self.hub.run(
            *("ip", "link", "add", here, "type", "veth"), *("peer", "name", "eth0", "netns", str(host.pid))
        )
        self.hub.run("ip", "link", "set", here, "master", "switch", "up")
        host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def cut(self, name: str) -> None:
        """Pull the host's cable: it keeps its address, and what it sends is lost without an answer."""
        self.hub.run("ip", "link", "set", f"to-{name}", "down")

    def mend(self, name: str) -> None:
        self.hub.run("ip", "link", "set", f"to-{name}", "up")

    def close(self) -> None:
        """Nothing that was started on the hosts may still need the network."""
        for host in (*self.hosts.values(), self.hub):
            host.close()


class _From(httpx.BaseTransport):
    """Connections are made by a thread on the host."""

    def __init__(self, host: Host) -> None:
        self._thread, self._http = host.thread(), httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._thread.submit(self._http.handle_request, request).result()

    def close(self) -> None:
        self._http.close()
        self._thread.shutdown()
