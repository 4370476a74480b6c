"""A cluster, a reference run that nobody disturbs, and trials against it."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.cluster import LEASE_S, STATS_S, Cluster
from tests.faults.rows import Row
from tests.faults.trial import STEPS, Trial, losses
from tests.nanochat.trainers import write_corpus
from worker import processes


@dataclass
class Counts:
    """What became of a row's tries."""

    tried: int = 0
    held: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


class Campaign:
    """Everything that rows need, made once."""

    def __init__(
        self, base: Path, database_url: str = "", lease_s: float = LEASE_S, stats_s: float = STATS_S
    ) -> None:
        self.corpus = write_corpus(base / "corpus")
        self.cluster = Cluster(base / "base", database_url, lease_s, stats_s=stats_s)
        try:
            self.cluster.up("queue", "server", "worker")
            body = {"stage": "tokenizer", "overrides": {"data": str(self.corpus), "vocab_size": 300}}
            self.tokenizer = str(self.cluster.post("/runs", body)["id"])
            self.cluster.until(self.tokenizer, "succeeded")
            self._references: dict[int, dict[int, float]] = {}
            self.reference(STEPS)
        except BaseException:
            self.close()
            raise

    def reference(self, steps: int) -> dict[int, float]:
        """Losses of a run of so many steps that nobody disturbs."""
        if steps not in self._references:
            whole = self.begin(random.Random(0), steps)
            self.cluster.until(whole.id, "succeeded", "failed")
            found = losses(self.cluster, whole.id)
            whole.ends(found)
            self._references[steps] = found
        return self._references[steps]

    def begin(self, rng: random.Random, steps: int) -> Trial:
        return Trial(self.cluster, self.tokenizer, self.corpus, rng, steps)

    def attempt(self, row: Row, seed: int, away_s: float | None = None) -> None:
        """One try of one row. Raises AssertionError with what did not hold."""
        reference = self.reference(row.steps)
        with row.around(self.cluster):
            trial = self.begin(random.Random(seed), row.steps)
            if away_s is not None:
                trial.away_s = away_s
            try:
                if not row.act(trial, reference):
                    trial.ends(reference)
            finally:
                trial.watch.stop()

    def repair(self) -> None:
        """After a try that did not hold: everything runs again, and no run of it is left."""
        for name in [part for part in self.cluster.parts if part.startswith("worker")]:
            self.cluster.proxies[name].heal()
            self.cluster.kill(name)
        processes.kill(self.cluster.base)
        self.cluster.up("queue", "server", "worker")
        for run in self.cluster.get("/runs", limit=200)["items"]:
            with suppress(httpx.HTTPError):
                self.cluster.http.post(f"/runs/{run['id']}/cancel")

    def close(self) -> None:
        self.cluster.stop()


def tries(
    campaign: Campaign, rows: Sequence[Row], count: int, seed: int, keep: Path | None = None
) -> Iterator[tuple[Row, Counts]]:
    """Every row `count` times, one after the other; yields each row with its counts.

    `keep`: where to leave a copy of the base directory of each try that did not hold.
    """
    for row in rows:
        counts = Counts()
        if why := row.needs():
            counts.broken.append(f"not tried: {why}")
        else:
            for number in range(count):
                started = time.monotonic()
                counts.tried += 1
                try:
                    campaign.attempt(row, seed * 1000 + number)
                    counts.held += 1
                except Exception as error:
                    counts.broken.append(f"try {number}: {type(error).__name__}: {error}"[:600])
                    if keep is not None:
                        name = f"{row.name.replace(' ', '-')}-{number}"
                        shutil.copytree(campaign.cluster.base, keep / name, ignore=_sockets)
                    campaign.repair()
                counts.seconds += time.monotonic() - started
        yield row, counts


def _sockets(place: str, names: list[str]) -> set[str]:
    return {name for name in names if Path(place, name).is_socket()}


@contextmanager
def running(
    base: Path, database_url: str = "", lease_s: float = LEASE_S, stats_s: float = STATS_S
) -> Iterator[Campaign]:
    """A campaign whose processes are gone afterwards."""
    campaign = Campaign(base, database_url, lease_s, stats_s)
    try:
        yield campaign
    finally:
        campaign.close()
