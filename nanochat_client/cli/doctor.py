"""`nanochat doctor`: what a run on this machine needs, each with what to do when it is missing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import typer

from nanochat_client.cli.output import Json, dump, say, size

DISK_BYTES = 5 * 1024**3
TORCH_S = 120.0
TORCH = (
    "import torch; n = torch.cuda.device_count(); "
    "print(torch.__version__, f'with {n} GPU(s)' if n else 'on the CPU')"
)


@dataclass
class Check:
    name: str
    ok: bool
    found: str
    fix: str = ""


def doctor(as_json: Json = False) -> None:
    """Check this machine and the service; every line says ok, or what to do."""
    done: list[Check] = []
    for check in _checks():
        done.append(check)
        if not as_json:
            fix = f"\n     {check.fix}" if not check.ok and check.fix else ""
            say(f"{'ok ' if check.ok else 'bad'}  {check.name}: {check.found}{fix}")
    if as_json:
        dump([asdict(check) for check in done])
    if not all(check.ok for check in done):
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    yield _python()
    base = _base_dir()
    yield _writable(base)
    yield _disk(base)
    yield _torch()
    yield _gpu()
    yield from _service()


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _base_dir() -> Path:
    from nanochat.paths import base_dir

    return Path(base_dir())


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _writable(base: Path) -> Check:
    place = _existing(base)
    ok = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    found = f"{base}{'' if ok else ' cannot be written'}"
    return Check("base directory", ok, found, "set NANOCHAT_BASE_DIR to a directory you can write")


def _disk(base: Path) -> Check:
    free = shutil.disk_usage(_existing(base)).free
    return Check(
        "disk",
        free >= DISK_BYTES,
        f"{size(free)} free",
        f"free {size(DISK_BYTES)} or move the base directory",
    )


def _torch() -> Check:
    """In a process of its own: a broken installation may crash rather than raise."""
    fix = "run make setup"
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=TORCH_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("torch", False, f"did not load within {TORCH_S:.0f} s", fix)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return Check("torch", False, last, fix)
    return Check("torch", True, done.stdout.strip())


def _gpu() -> Check:
    """No GPU is fine: the CPU trains small models."""
    if shutil.which("nvidia-smi") is None:
        return Check("gpu", True, "no nvidia-smi: runs use the CPU")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return Check("gpu", False, "nvidia-smi hangs", "restart the machine, or reload the NVIDIA driver")
    if done.returncode:
        reason = [*(done.stdout + done.stderr).strip().splitlines(), "nvidia-smi fails"][0]
        return Check("gpu", False, reason, "install or reload the NVIDIA driver")
    return Check("gpu", True, "; ".join(done.stdout.strip().splitlines()))


def _service() -> Iterator[Check]:
    from nanochat_client import Client, NanochatError

    with Client() as client:
        try:
            system = client.system()
        except NanochatError as error:
            parts = urlsplit(client.url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            yield _port(parts.hostname or "", port)
            yield Check("server", False, error.detail, "start it with nanochat up")
            return
        yield Check("server", True, f"{client.url}, version {system.version}, {system.database}")
        alive = [worker.name for worker in system.workers if worker.alive]
        fix = "start one with nanochat worker (nanochat up has one)"
        yield Check("worker", bool(alive), ", ".join(alive) or "none is alive", fix)


def _port(host: str, port: int) -> Check:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return Check("port", True, f"{port} is free")
    fix = f"stop it, or use another: nanochat up --port {port + 1} and NANOCHAT_URL"
    return Check("port", False, f"{port} is taken by another program", fix)


def register(app: typer.Typer) -> None:
    app.command()(doctor)
