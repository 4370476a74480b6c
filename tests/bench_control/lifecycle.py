"""How quickly a run starts, and how quickly it trains again after its worker was killed.

    python -m tests.bench_control.lifecycle --tries 10

Real processes (tests/faults): server, Valkey, one worker with two declared GPUs, torchrun with two ranks.
The start is measured from the request to the moment at which torchrun's program is in its process; the
return from SIGKILL to supervisor, slots and work-horse, the worker started again at once (as `make up`
does after 0.2 s), to the first step of the next attempt: importing torch and loading are part of it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Campaign, running
from tests.faults.cluster import elapsed, wait_until
from tests.faults.rows import kill
from tests.faults.trial import LONG, STEPS

MUST_START_S, AIM_START_S = 2.0, 0.5
MUST_BACK_S, AIM_BACK_S = 60.0, 20.0


def start_s(campaign: Campaign) -> float:
    """Seconds from POST /runs to execve of torchrun."""
    took = elapsed()
    trial = campaign.begin(random.Random(0), STEPS)
    trial.watch.stop()  # it would look at all processes beside us
    wait_until(lambda: trial.id in campaign.cluster.trainers(), every_s=0.002)
    seconds = took()
    campaign.cluster.post(f"/runs/{trial.id}/cancel")
    campaign.cluster.until(trial.id, "cancelled", "succeeded")
    return seconds


def back_s(campaign: Campaign) -> float:
    """Seconds from the kill of a worker to the first step that the run's next attempt makes."""
    trial = campaign.begin(random.Random(0), LONG)
    trial.watch.stop()
    trial.come_to_step(30)
    kill(campaign.cluster.family().worker)
    took = elapsed()
    campaign.cluster.parts["worker"].wait()
    campaign.cluster.start("worker")
    wait_until(lambda: trial.newest > 1 and trial.step > 0)
    seconds = took()
    campaign.cluster.post(f"/runs/{trial.id}/cancel")
    campaign.cluster.until(trial.id, "cancelled", "succeeded")
    return seconds


def lines(tries: int) -> list[str]:
    """Rows of the table of figures, in Markdown."""
    with (
        tempfile.TemporaryDirectory(prefix="nanochat-lifecycle-", ignore_cleanup_errors=True) as place,
        running(Path(place)) as campaign,
    ):
        starts = [start_s(campaign) for _ in range(tries)]
        backs = [back_s(campaign) for _ in range(max(1, tries // 2))]
    return [
        _line("POST /runs → execve of torchrun, p50", starts, MUST_START_S, AIM_START_S),
        _line("worker killed → run back in training, p50", backs, MUST_BACK_S, AIM_BACK_S),
    ]


def _line(name: str, seconds: list[float], must_s: float, aim_s: float) -> str:
    middle, worst = statistics.median(seconds), max(seconds)
    return (
        f"| {name} | {must_s:g} s | {aim_s:g} s | {middle:.2f} s (worst of {len(seconds)}: {worst:.2f} s) |"
    )


def main() -> int:
    flags = argparse.ArgumentParser(description="How quickly runs start and come back.")
    flags.add_argument("--tries", type=int, default=10)
    given = flags.parse_args()
    started = time.monotonic()
    print("| what | must | aim | measured |\n|---|---|---|---|")
    print("\n".join(lines(given.tries)))
    print(f"{time.monotonic() - started:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
