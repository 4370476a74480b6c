"""A cluster, a reference run that nobody disturbs, and trials against it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.cluster import LEASE_S, Cluster
from tests.faults.rows import Row
from tests.faults.trial import Trial, losses
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

    def __init__(self, base: Path, database_url: str = "", lease_s: float = LEASE_S) -> None:
        self.corpus = write_corpus(base / "corpus")
        self.cluster = Cluster(base / "base", database_url, lease_s)
        try:
            self.cluster.up("queue", "server", "worker")
            body = {"stage": "tokenizer", "overrides": {"data": str(self.corpus), "vocab_size": 300}}
            self.tokenizer = str(self.cluster.post("/runs", body)["id"])
            self.cluster.until(self.tokenizer, "succeeded")
            whole = self.begin(random.Random(0))
            self.cluster.until(whole.id, "succeeded", "failed")
            self.reference = losses(self.cluster, whole.id)
            whole.ends(self.reference)
        except BaseException:
            self.close()
            raise

    def begin(self, rng: random.Random) -> Trial:
        return Trial(self.cluster, self.tokenizer, self.corpus, rng)

    def attempt(self, row: Row, seed: int, away_s: float | None = None) -> None:
        """One try of one row. Raises AssertionError with what did not hold."""
        with row.around(self.cluster):
            trial = self.begin(random.Random(seed))
            if away_s is not None:
                trial.away_s = away_s
            try:
                if not row.act(trial, self.reference):
                    trial.ends(self.reference)
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


def tries(campaign: Campaign, rows: Sequence[Row], count: int, seed: int) -> Iterator[tuple[Row, Counts]]:
    """Every row `count` times, one after the other; yields each row with its counts."""
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
                    campaign.repair()
                counts.seconds += time.monotonic() - started
        yield row, counts


@contextmanager
def running(base: Path, database_url: str = "", lease_s: float = LEASE_S) -> Iterator[Campaign]:
    """A campaign whose processes are gone afterwards."""
    campaign = Campaign(base, database_url, lease_s)
    try:
        yield campaign
    finally:
        campaign.close()
