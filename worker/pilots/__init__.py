"""Workers that a cluster's scheduler starts: `NANOCHAT_LAUNCHER=slurm` or `ray`, and `nanochat worker`.

What a scheduler is asked for is a node with a worker on it, not a training. The worker registers, claims,
renews and stops as on any host, so runs have the same life cycle there, several nodes included, and the
scheduler's queue is waited in once for many runs. `fleet.py` keeps so many of them going; what it asks of a
scheduler is `Scheduler` there, and `slurm_jobs.py` and `ray_actors.py` are the two there are.
"""

from __future__ import annotations

import sys

from worker.pilots.fleet import CannotLaunch, Fleet
from worker.settings import WorkerSettings


def main(settings: WorkerSettings) -> int:
    """Keep workers going until asked to stop. Returns 2 where there is no such scheduler."""
    try:
        fleet = _fleet(settings)
    except CannotLaunch as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    return fleet.run()


def _fleet(settings: WorkerSettings) -> Fleet:
    if settings.launcher == "ray":
        from worker.pilots.ray_actors import Ray

        return Fleet(Ray(settings), settings.ray_workers)
    from worker.pilots.slurm_jobs import Slurm

    return Fleet(Slurm(settings), settings.slurm_workers)
