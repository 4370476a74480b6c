"""Workers as actors of Ray.

One placement group holds a bundle for each worker, each on a node of its own (NANOCHAT_RAY_PLACE=pack: not
so). In each bundle an actor runs an ordinary worker as its child, with the GPUs that Ray gave the actor and
no others. When a node is lost, Ray keeps its bundle until there is room again, and so does the actor that is
asked for in its place.

A worker never outlives its actor, nor an actor this process. Asked to stop, the workers leave as on SIGTERM,
and this process waits for them. When it is killed, Ray ends the actors; their trainers save by themselves.

Not covered: Ray's own limits (a worker's processes are no tasks of Ray's, so its memory monitor does not see
them); GPUs that are no whole ones; a cluster that is reached with ray:// from outside.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from nanochat.paths import repo_dir
from worker.launch import ALLOWED_PREFIXES
from worker.pilots.fleet import CannotLaunch
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)
NAME = "nanochat-worker"
#: beside a worker's settings, what the launcher's environment says and the node's does not know
PASSED = ("AWS_", *ALLOWED_PREFIXES)
#: and of the settings those that speak of the launcher itself
OWN = ("NANOCHAT_LAUNCHER", "NANOCHAT_RAY_", "NANOCHAT_SLURM_", "NANOCHAT_HOST_ID", "NANOCHAT_NODE_ADDRESS")
#: this long is no room; less is Ray starting a process
NO_ROOM_S = 10.0
#: what a worker takes to leave beyond the grace of its trainers
LEAVE_S = 20.0


class Pilot:
    """What runs on the node: the process of an actor, with a worker as its child."""

    def __init__(self, given: Mapping[str, str], alone: bool, bundle: int) -> None:
        """`given`: see `passed_on`; `alone`: no other worker of ours is on this node."""
        import ray

        address = str(ray.util.get_node_ip_address())
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        host = host_id(platform.node(), address) + ("" if alone else f"-{bundle}")
        # a session of its own: what Ray sends to the actor's is not for the worker
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "worker.pilots.tied", str(os.getpid())],
            cwd=repo_dir(),
            env=environment(os.environ, given, host, address, [str(gpu) for gpu in gpus]),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def look(self) -> int | None:
        """The worker's exit status; None while it works."""
        return self._worker.poll()

    def leave(self) -> None:
        if self._worker.poll() is None:
            self._worker.terminate()


def host_id(name: str, address: str) -> str:
    """A node's: the same when Ray starts anew on it, different for two nodes on one machine."""
    words = (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in (name[:12], address))
    return "-".join(filter(None, ("ray", *words)))[:58]


def environment(
    node: Mapping[str, str], given: Mapping[str, str], host: str, address: str, gpus: Sequence[str]
) -> dict[str, str]:
    """The worker's: the node's own, what was passed on, and which of its GPUs are the worker's."""
    return {
        **node,
        **given,
        "NANOCHAT_LAUNCHER": "local",
        "NANOCHAT_HOST_ID": host,
        "NANOCHAT_NODE_ADDRESS": address,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
    }


def passed_on(settings: WorkerSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Of the launcher's environment what workers read, the worker token included, and nothing else of ours:
    who uses the cluster may read it, and would have the database and the keys of users."""
    mine = WorkerSettings.names()
    given = {
        key: value
        for key, value in environ.items()
        if value and (key in mine or key.startswith(PASSED)) and not key.startswith(OWN)
    }
    with suppress(FileNotFoundError):  # they look for the file themselves then
        given["NANOCHAT_WORKER_TOKEN"] = settings.token()
    return {**given, "NANOCHAT_BASE_DIR": str(settings.base_dir)}


class Actor:
    """A worker that Ray was asked for, in a bundle of the placement group."""

    def __init__(self, ray: Any, handle: Any, bundle: int) -> None:
        self._ray, self._handle, self.bundle = ray, handle, bundle
        self._asked = handle.look.remote()
        self._over = ""
        self.placed = False
        """Whether it has ever answered."""

    @property
    def name(self) -> str:
        return str(self.bundle)

    def ended(self) -> str:
        if not self._over and self._ray.wait([self._asked], timeout=0)[0]:
            self._over = self._answer()
            if self._over:
                self.kill()  # its bundle is free for the next one
            else:
                self._asked = self._handle.look.remote()
        return self._over

    def _answer(self) -> str:
        errors = self._ray.exceptions
        try:
            status = self._ray.get(self._asked)
        except errors.ActorUnavailableError:
            return ""  # the network: it may still be there
        except errors.RayError as error:
            return _last_line(error)
        self.placed = True
        return "" if status is None else f"the worker left with status {status}"

    def cancel(self) -> None:
        self._handle.leave.remote()

    def kill(self) -> None:
        """At once. A worker that still works is sent SIGTERM."""
        self._ray.kill(self._handle)


class Ray:
    """Asks Ray for workers. Raises CannotLaunch where there is no cluster or no Ray."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._ray = ray = _connect(settings)
        self._given = passed_on(settings, os.environ)
        self._bundle = {"CPU": settings.ray_cpus, "GPU": settings.ray_gpus}
        self._alone = settings.ray_place == "spread"
        self._group = ray.util.placement_group(
            [{key: amount for key, amount in self._bundle.items() if amount}] * settings.ray_workers,
            strategy="STRICT_SPREAD" if self._alone else "PACK",
            name=f"{NAME}-{os.getpid()}",
        )
        self._make = ray.remote(Pilot)
        self._actors: dict[int, Actor] = {}
        self._waits_since: float | None = None
        self._said = False

    def submit(self) -> Actor:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        taken = {bundle for bundle, actor in self._actors.items() if not actor.ended()}
        bundle = min(set(range(self._settings.ray_workers)) - taken)
        handle = self._make.options(
            num_cpus=self._settings.ray_cpus,
            num_gpus=self._settings.ray_gpus,
            max_restarts=0,  # asked for again by us, after a pause where that is due
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=bundle
            ),
        ).remote(self._given, self._alone, bundle)
        self._actors[bundle] = actor = Actor(self._ray, handle, bundle)
        return actor

    def look(self) -> None:
        """Say it once when there is no room, and when there is again."""
        state = self._ray.util.placement_group_table(self._group).get("state")
        if state == "CREATED":
            if self._said:
                log.info("Ray has room for all %d worker(s) now", self._settings.ray_workers)
            self._waits_since, self._said = None, False
            return
        now = time.monotonic()
        self._waits_since = now if self._waits_since is None else self._waits_since
        if now - self._waits_since >= NO_ROOM_S and not self._said:
            self._said = True
            log.warning(
                "Ray has no room for %d worker(s) with %s each%s: waiting (ray status tells what there is)",
                self._settings.ray_workers,
                " and ".join(f"{amount} {key}" for key, amount in self._bundle.items() if amount),
                ", every one on a node of its own" if self._alone else "",
            )

    def close(self) -> None:
        """Wait for the workers, as long as their trainers may take; then actors and bundles are removed."""
        deadline = time.monotonic() + self._settings.grace_s + LEAVE_S
        staying = [actor for actor in self._actors.values() if not actor.ended()]
        while any(actor.placed for actor in staying) and time.monotonic() < deadline:
            time.sleep(0.1)
            staying = [actor for actor in staying if not actor.ended()]
        for actor in staying:
            actor.kill()
        self._ray.util.remove_placement_group(self._group)
        self._ray.shutdown()


def _connect(settings: WorkerSettings) -> Any:
    """Ray, connected to the cluster. Raises CannotLaunch; never starts a cluster of its own."""
    try:
        import ray
    except ImportError:
        raise CannotLaunch("NANOCHAT_LAUNCHER=ray needs a package: pip install 'ray>=2.60'") from None
    address = settings.ray_address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _knock(address)
        ray.init(address=address, namespace=NAME, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise CannotLaunch(f"NANOCHAT_LAUNCHER=ray: no cluster at {address}: {_last_line(error)}") from None
    log.info("connected to Ray %s as a driver on node %s", ray.__version__, ray.util.get_node_ip_address())
    return ray


def _knock(address: str) -> None:
    """Raises OSError where nothing listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "//" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _last_line(error: Exception) -> str:
    """Of Ray's messages, which begin with a traceback and end with what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
