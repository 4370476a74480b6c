"""`nanochat doctor`: what a run on this machine needs, each with the command that repairs it.

`ok`; `warn`: works, or not needed for every run; `fail`: something will not work, and the exit status is 1.
What another room knows it is asked for as a process of its own: torch, the data (`nanochat.data`), database
and queue (`server.doctor`). Not covered: the machines of workers elsewhere; run it there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import typer

from nanochat_client.cli.output import Json, dump, say, size

if TYPE_CHECKING:
    from nanochat_client.errors import NanochatError

Level = Literal["ok", "warn", "fail"]

DISK_BYTES = 5 * 1024**3
#: a pretraining run of real size keeps shards and checkpoints of this much
ROOM_BYTES = 50 * 1024**3
TORCH_S = 120.0
ASK_S = 60.0
TORCH = (
    "import json, torch; print(json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda, "
    "'gpus': torch.cuda.device_count()}))"
)
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass
class Check:
    name: str
    level: Level
    found: str
    fix: str = ""
    """A command."""


def doctor(as_json: Json = False) -> None:
    """Check this machine and the service; each line is ok, warn or FAIL, with the command that repairs it."""
    done: list[Check] = []
    for check in _checks():
        if check.level == "ok":
            check.fix = ""
        done.append(check)
        if not as_json:
            say(f"{MARKS[check.level]}  {check.name}: {check.found}")
            if check.fix:
                say(f"      $ {check.fix}")
            sys.stdout.flush()
    if as_json:
        dump([asdict(check) for check in done])
    if any(check.level == "fail" for check in done):
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    from concurrent.futures import ThreadPoolExecutor

    yield _python()
    base = _base_dir()
    yield _writable(base)
    yield _disk(base)
    cards = _cards()
    with ThreadPoolExecutor() as side_by_side:  # each waits for a program of seconds
        torch = side_by_side.submit(_torch, cards)
        datasets = side_by_side.submit(_datasets)
        service = side_by_side.submit(lambda: list(_service()))
        yield torch.result()
        yield _gpus(cards)
        yield _corpus(base)
        yield datasets.result()
        yield from service.result()


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    level: Level = "ok" if sys.version_info >= (3, 11) else "fail"
    return Check("python", level, f"{version} at {sys.executable}", "make setup PYTHON=python3.11")


def _base_dir() -> Path:
    from nanochat.paths import base_dir

    return Path(base_dir())


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _writable(base: Path) -> Check:
    place = _existing(base)
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Check("base directory", "ok", str(base))
    return Check("base directory", "fail", f"{base} cannot be written", "export NANOCHAT_BASE_DIR=~/nanochat")


def _disk(base: Path) -> Check:
    free = shutil.disk_usage(_existing(base)).free
    level: Level = "fail" if free < DISK_BYTES else "warn" if free < ROOM_BYTES else "ok"
    found = f"{size(free)} free"
    if level == "warn":
        found += f"; enough for the demo, pretraining at full size wants {size(ROOM_BYTES)}"
    return Check("disk", level, found, "export NANOCHAT_BASE_DIR=/a/larger/disk")


def _run(command: list[str], limit_s: float) -> subprocess.CompletedProcess[str] | None:
    """How it ended; None: not within `limit_s`."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return None


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return [f"it ended with {done.returncode}", *done.stderr.strip().splitlines()][-1]


def _torch(cards: list[str] | str) -> Check:
    """In a process of its own: a broken installation may crash rather than raise."""
    done = _run([sys.executable, "-c", TORCH], TORCH_S)
    if done is None:
        return Check("torch", "fail", f"did not load within {TORCH_S:.0f} s", "make setup")
    if done.returncode:
        return Check("torch", "fail", _last_line(done), "make setup")
    about = json.loads(done.stdout.splitlines()[-1])
    if about["gpus"]:
        return Check("torch", "ok", f"{about['version']} with {about['gpus']} GPU(s), CUDA {about['cuda']}")
    if not cards or isinstance(cards, str):
        return Check("torch", "ok", f"{about['version']} on the CPU")
    if not about["cuda"]:
        found = f"{about['version']} is built for the CPU, and there is a GPU"
        return Check("torch", "fail", found, "rm -rf .venv && make setup")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Check("torch", "warn", "CUDA_VISIBLE_DEVICES hides the GPUs", "unset CUDA_VISIBLE_DEVICES")
    found = f"{about['version']} sees no GPU: the driver is too old for CUDA {about['cuda']}, or broken"
    return Check("torch", "fail", found, "nvidia-smi -q -d COMPUTE")


def _cards() -> list[str] | str:
    """The GPUs with memory and driver, a line each; a sentence when the driver does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = _run(query, 20)
    if done is None:
        return "nvidia-smi hangs"
    if done.returncode:
        return [*(done.stdout + done.stderr).strip().splitlines(), "nvidia-smi fails"][0]
    return done.stdout.strip().splitlines()


def _gpus(cards: list[str] | str) -> Check:
    """No GPU is fine: the CPU trains small models."""
    if isinstance(cards, str):
        return Check("gpus", "fail", cards, "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm")
    return Check("gpus", "ok", "; ".join(cards) or "none (no nvidia-smi): runs use the CPU")


def _corpus(base: Path) -> Check:
    """Text to pretrain on: two shards are the least, the last one is the validation split."""
    counts = {
        place.name: len(list(place.glob("*.parquet")))
        for place in sorted((base / "base_data").glob("*"))
        if place.is_dir()
    }
    ready = [f"{name} ({count} shards)" for name, count in counts.items() if count >= 2]
    if ready:
        return Check("corpus", "ok", ", ".join(ready))
    found = "no text to pretrain on yet; a run builds or downloads what it needs by itself"
    return Check("corpus", "warn", found, "python -m nanochat.dataset --source pydocs")


def _datasets() -> Check:
    done = _run([sys.executable, "-m", "nanochat.data", "list", "--json"], ASK_S)
    if done is None or done.returncode:
        said = "no answer" if done is None else _last_line(done)
        return Check("data sets", "fail", said, "nanochat data list")
    items = json.loads(done.stdout)["items"]
    missing = [item["name"] for item in items if not item["source"]]
    here = f"{len(items) - len(missing)} of {len(items)} are here"
    if not missing:
        return Check("data sets", "ok", here)
    found = f"{here}, not {', '.join(missing)}"
    return Check("data sets", "warn", found, f"nanochat data get {missing[0]}")


def _service() -> Iterator[Check]:
    from nanochat_client import Client, NanochatError
    from nanochat_client.address import LOOPBACK

    with Client() as client:
        if urlsplit(client.url).hostname in LOOPBACK:
            yield from _parts()
        try:
            system = client.system()
        except NanochatError as error:
            yield from _silent(client.url, error)
            return
    yield Check("server", "ok", f"{client.url}, version {system.version}, {system.database}")
    alive = [worker.name for worker in system.workers if worker.alive]
    yield Check("worker", "ok" if alive else "fail", ", ".join(alive) or "none is alive", "nanochat worker")
    foreign = [
        f"GPU {gpu.index} of {worker.name}"
        for worker in system.workers
        for gpu in (worker.stats.gpus if worker.stats and worker.alive else [])
        if gpu.foreign
    ]
    if foreign:
        found = f"{', '.join(foreign)} also runs programs that are not the service's"
        yield Check("gpu memory", "warn", found, "nvidia-smi")


def _parts() -> Iterator[Check]:
    """Database and queue, by the settings that a server started here would have."""
    done = _run([sys.executable, "-m", "server.doctor"], ASK_S)
    if done is None or done.returncode:
        said = "no answer" if done is None else _last_line(done)
        yield Check("server settings", "fail", said, "python -m server.doctor")
        return
    for line in done.stdout.splitlines():
        yield Check(**json.loads(line))


def _silent(url: str, error: NanochatError) -> Iterator[Check]:
    """The service does not answer, or not as it should: is its port taken, does it want a key?"""
    from nanochat_client.address import LOOPBACK

    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if error.status in (401, 403):
        yield Check("server", "fail", error.detail, "nanochat keys create --local")
        return
    if parts.hostname in LOOPBACK:
        yield _port(parts.hostname or "", port)
        yield Check("server", "fail", error.detail, "nanochat up")
        return
    yield Check("server", "fail", error.detail, f"curl -i {url}/healthz")


def _port(host: str, port: int) -> Check:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return Check("port", "ok", f"{port} is free")
    fix = f"export NANOCHAT_URL=http://127.0.0.1:{port + 1} && nanochat up --port {port + 1}"
    return Check("port", "fail", f"{port} is taken by another program", fix)


def register(app: typer.Typer) -> None:
    app.command()(doctor)
