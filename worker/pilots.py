"""Workers as jobs of Slurm: `NANOCHAT_LAUNCHER=slurm nanochat worker`.

What Slurm is asked for is a node with a worker on it, not a training. The worker registers, claims, renews
and stops as on any host, so runs have the same life cycle there, several nodes included, and Slurm's queue
is waited in once for many runs. Jobs are submitted by submitit; each is one node. One that ends without
having been asked to is replaced. Before its time is over or it is preempted, Slurm sends the worker's job
SIGUSR2: trainers save and leave, their runs go on elsewhere, and the job is queued again.

Not covered: starting more when runs wait and fewer when none do; jobs that outlive this process when it is
killed with SIGKILL (`scancel --name nanochat-worker` ends them).
"""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from worker.settings import WorkerSettings

log = logging.getLogger(__name__)
NAME = "nanochat-worker"
LOOK_S = 2.0
#: a job that ends sooner than this has something wrong with it: wait before the next
SHORT_S, PAUSE_S = 60.0, 30.0
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
        self._worker = subprocess.Popen([sys.executable, "-m", "worker"], env=self.environment(os.environ))
        return self._worker.wait()

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The worker's: an ordinary one, whose host is the node's name (images share /etc/machine-id)."""
        name = re.sub(r"[^a-z0-9-]+", "-", platform.node().lower()).strip("-")[:50] or "node"
        return {
            "NANOCHAT_HOST_ID": f"slurm-{name}",
            **{key: value for key, value in environ.items() if value},
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


def slurm(settings: WorkerSettings) -> Any:
    """The executor that asks Slurm. Raises RuntimeError where there is none, ImportError without submitit."""
    from submitit import SlurmExecutor

    folder = settings.base_dir / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    executor = SlurmExecutor(folder=folder, max_num_timeout=10_000)
    asked: dict[str, Any] = {
        "job_name": NAME,
        "time": settings.slurm_minutes,
        "nodes": 1,
        "ntasks_per_node": 1,
        "signal_delay_s": WARNING_S,
        "stderr_to_stdout": True,
        "additional_parameters": options(settings.slurm_options),
    }
    if settings.slurm_gpus:
        asked["gpus_per_node"] = settings.slurm_gpus
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


class Pilots:
    """Keeps so many worker jobs going until it is asked to stop."""

    def __init__(
        self,
        executor: Any,
        count: int,
        make: Callable[[], Pilot],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor, self._count, self._make, self._clock = executor, count, make, clock
        self._jobs: list[tuple[Any, float]] = []
        self._not_before = 0.0
        self.stopping = False

    @property
    def jobs(self) -> list[str]:
        return [str(job.job_id) for job, _ in self._jobs]

    def look(self) -> None:
        """Forget jobs that have ended, submit what is missing."""
        now = self._clock()
        for job, since in list(self._jobs):
            if job.done():
                self._jobs.remove((job, since))
                log.warning("job %s has ended (%s)", job.job_id, job.state)
                if now - since < SHORT_S:
                    self._not_before = now + PAUSE_S
        while len(self._jobs) < self._count and now >= self._not_before:
            job = self._executor.submit(self._make())
            self._jobs.append((job, now))
            log.info("job %s: a worker was asked for", job.job_id)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self.stopping:
            self.look()
            deadline = time.monotonic() + LOOK_S
            while not self.stopping and time.monotonic() < deadline:
                time.sleep(0.1)
        self.cancel()
        return 0

    def cancel(self) -> None:
        """Every job is asked to leave; its trainers save first."""
        for job, _ in self._jobs:
            job.cancel(check=False)

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True


def main(settings: WorkerSettings) -> int:
    try:
        executor = slurm(settings)
    except ImportError:
        print("worker: NANOCHAT_LAUNCHER=slurm needs a package: pip install submitit", file=sys.stderr)
        return 2
    except (RuntimeError, ValueError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    make = partial(Pilot, str(settings.base_dir), settings.grace_s)
    return Pilots(executor, settings.slurm_workers, make).run()
