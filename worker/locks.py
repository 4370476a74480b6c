"""Locks of this host that a work-horse and its guard hold while a trainer may live.

One per run: two trainers of one run never live on one host, whatever the server believes. One per GPU,
shared by all services of the machine. The kernel frees them when their holders are dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from nanochat_client.types import Gpu
from worker import notes

POLL_S = 0.05


class Busy(Exception):
    """Somebody else holds what is needed; the text says who."""


class Locks:
    """Held until `release`, or until this process and everything that it forked are dead."""

    def __init__(self, base_dir: Path, host: str) -> None:
        self._base_dir, self._host = base_dir, host
        self._held: list[int] = []
        self._own: list[Path] = []

    def run(self, run_id: str, kill_trainers: Callable[[], object], wait_s: float = 20.0) -> None:
        """Take the run from whoever held it on this host: our fence is newer, so theirs is stale.

        Their trainer is killed, then they are. Raises Busy when they do not die.
        """
        path = notes.place(self._base_dir, self._host) / "runs" / f"{run_id}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_s
        while (file := _take(path)) is None:
            kill_trainers()
            _kill_holder(path)
            if time.monotonic() > deadline:
                raise Busy(f"an earlier attempt of run {run_id} does not end on this host")
            time.sleep(POLL_S)
        kill_trainers()
        _say_who(file)
        self._held.append(file)
        self._own.append(path)

    def gpus(self, indices: Sequence[int], waiting: Callable[[], bool], wait_s: float = 60.0) -> None:
        """Take the locks of these GPUs. `waiting` is asked between tries. Raises Busy."""
        names = gpu_names(self._base_dir, self._host)
        deadline = time.monotonic() + wait_s
        for index in sorted(indices):
            path = gpu_lock(names.get(index, f"{self._host}-{index}"))
            while (file := _take(path)) is None:
                if not waiting() or time.monotonic() > deadline:
                    raise Busy(f"GPU {index} is held by {_who(path)}")
                time.sleep(POLL_S)
            _say_who(file)
            self._held.append(file)

    def release(self) -> None:
        for path in self._own:
            path.unlink(missing_ok=True)
        for file in self._held:
            os.close(file)
        self._held, self._own = [], []


def gpu_lock(name: str) -> Path:
    """The lock file of a GPU: the same for every user and service of this machine."""
    folder = Path(tempfile.gettempdir()) / "nanochat-gpus"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o777)
        folder.chmod(0o1777)
    return folder / f"{name}.lock"


def note_gpus(base_dir: Path, host: str, gpus: Sequence[Gpu]) -> None:
    """Remember what the GPUs are called, for the work-horses, which do not open NVML."""
    folder = notes.place(base_dir, host)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpus.json").write_text(json.dumps({gpu.index: gpu.uuid for gpu in gpus if gpu.uuid}))


def gpu_names(base_dir: Path, host: str) -> dict[int, str]:
    with suppress(OSError, ValueError):
        text = (notes.place(base_dir, host) / "gpus.json").read_text()
        return {int(index): str(name) for index, name in json.loads(text).items()}
    return {}


def _take(path: Path) -> int | None:
    """The open, locked file; None while somebody else has it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except PermissionError:  # another user's file in a sticky directory: locking needs no write access
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), path.stat()):  # not one that its holder has just removed
            return file
    except OSError:
        pass
    os.close(file)
    return None


def _say_who(file: int) -> None:
    me = psutil.Process()
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": me.pid, "born": me.create_time()}).encode(), 0)


def _holder(path: Path) -> psutil.Process | None:
    with suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        found = json.loads(path.read_text())
        process = psutil.Process(int(found["pid"]))
        if process.create_time() == found["born"]:
            return process
    return None


def _who(path: Path) -> str:
    process = _holder(path)
    return f"process {process.pid} ({process.name()})" if process else "another process"


def _kill_holder(path: Path) -> None:
    """End the work-horse that noted itself here; its guard follows once the trainer is dead."""
    process = _holder(path)
    if process is not None and process.pid != os.getpid():
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
