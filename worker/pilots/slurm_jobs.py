"""Workers as jobs of Slurm.

Jobs are submitted by submitit; each is one node. Before its time is over or it is preempted, Slurm sends the
worker's job SIGUSR2: trainers save and leave, their runs go on elsewhere, and the job is queued again. Jobs
that Slurm puts on one node are hosts of their own: `slurm-<node>`, `slurm-<node>-2` …

Not covered: jobs that outlive this process when it is killed with SIGKILL (`scancel --name nanochat-worker`
ends them). What is submitted is a pickle in `slurm/` of the base directory: who may write there may run
programs as the jobs' user.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker.pilots.fleet import CannotLaunch
from worker.settings import WorkerSettings

NAME = "nanochat-worker"
WARNING_S = 120


class Pilot:
    """What runs on the node: a worker, told in time to save and leave. Pickled by submitit."""

    def __init__(self, base_dir: str, grace_s: float) -> None:
        self._base_dir, self._grace_s = base_dir, grace_s
        self._worker: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Returns the worker's exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        with own_name(Path(self._base_dir), wanted_name(os.environ)) as host:
            environ = self.environment(os.environ, host)
            self._worker = subprocess.Popen([sys.executable, "-m", "worker"], env=environ)
            return self._worker.wait()

    def environment(self, environ: Mapping[str, str], host: str) -> dict[str, str]:
        """The worker's: an ordinary one. sbatch hands on all that the launcher had; not for workers are the
        database and the keys of users."""
        mine, ours = WorkerSettings.names(), "NANOCHAT_"
        return {
            # an empty setting is none; an empty CUDA_VISIBLE_DEVICES is not
            **{
                key: value
                for key, value in environ.items()
                if not key.startswith(ours) or (value and key in mine)
            },
            "NANOCHAT_HOST_ID": host,
            "NANOCHAT_LAUNCHER": "local",
            "NANOCHAT_BASE_DIR": self._base_dir,
        }

    def checkpoint(self) -> Any:
        """Called by submitit on SIGUSR2: leave, and be queued again."""
        from submitit.helpers import DelayedSubmission

        self._leave()
        if self._worker is not None:
            self._worker.wait(self._grace_s + 15)
        return DelayedSubmission(Pilot(self._base_dir, self._grace_s))

    def _leave(self, *_: object) -> None:
        if self._worker is not None and self._worker.poll() is None:
            self._worker.terminate()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_worker": None}


def wanted_name(environ: Mapping[str, str]) -> str:
    """Of the host: what NANOCHAT_HOST_ID says, else the node's (images share /etc/machine-id)."""
    if given := environ.get("NANOCHAT_HOST_ID"):
        return given[:58]
    name = re.sub(r"[^a-z0-9-]+", "-", platform.node().lower()).strip("-")[:50] or "node"
    return f"slurm-{name}"


@contextmanager
def own_name(base: Path, wanted: str) -> Iterator[str]:
    """A host id that no other job has: `wanted`, or with the lowest number that is free.

    The lock goes with this process; the next job of the node is the same host again, so it proves what the
    one before has left.
    """
    folder = base / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        name = wanted if number == 1 else f"{wanted}-{number}"
        with (folder / f"{name}.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield name
            return


class Submitted:
    """One of submitit's jobs."""

    def __init__(self, job: Any) -> None:
        self._job = job

    @property
    def name(self) -> str:
        return str(self._job.job_id)

    def ended(self) -> str:
        return str(self._job.state or "over") if self._job.done() else ""

    def cancel(self) -> None:
        self._job.cancel(check=False)


class Slurm:
    """Asks Slurm for workers. Raises CannotLaunch where there is no Slurm or no submitit."""

    def __init__(self, settings: WorkerSettings, executor: Any = None) -> None:
        """`executor`: another of submitit's."""
        self._settings = settings
        self._executor = asking(settings) if executor is None else executor

    def submit(self) -> Submitted:
        pilot = Pilot(str(self._settings.base_dir), self._settings.grace_s)
        return Submitted(self._executor.submit(pilot))

    def look(self) -> None:
        """`squeue` says why a job waits."""

    def close(self) -> None:
        """Jobs that were cancelled end by themselves."""


def asking(settings: WorkerSettings) -> Any:
    """The executor that asks Slurm. Raises CannotLaunch."""
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise CannotLaunch("NANOCHAT_LAUNCHER=slurm needs a package: pip install submitit") from None
    folder = settings.base_dir / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = {
        "job_name": NAME,
        "time": settings.slurm_minutes,
        "nodes": 1,
        "ntasks_per_node": 1,
        "signal_delay_s": WARNING_S,
        "stderr_to_stdout": True,
    }
    if settings.slurm_gpus:
        asked["gpus_per_node"] = settings.slurm_gpus
    try:
        asked["additional_parameters"] = options(settings.slurm_options)
        executor = SlurmExecutor(folder=folder, max_num_timeout=10_000)
    except (RuntimeError, ValueError) as error:
        raise CannotLaunch(str(error)) from None
    executor.update_parameters(**asked)
    return executor


def options(text: str) -> dict[str, str]:
    """`partition=gpu,account=lab` as a mapping. Raises ValueError for what is no `name=value`."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not re.fullmatch(r"\S+", value):
            raise ValueError(f"NANOCHAT_SLURM_OPTIONS: {part!r} is no name=value of sbatch")
        found[name] = value
    return found
