"""Checkpoints written behind the training's back, and which of them stay.

`start` takes copies and returns; a thread of low priority writes, hashes and syncs them. One write is
under way at a time. An error of the thread (a full disk) is raised by the next `poll` or `wait`.
A checkpoint never changes; what is measured of it later stands beside it, in `measured.json`.
Not covered: saving from more than one rank; the caller gathers everything on one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nanochat.checkpoint import Saved, find_checkpoints, read_meta
from nanochat.paths import replace_link

LOW_PRIORITY = 10
MEASURED = "measured.json"


@dataclass(frozen=True)
class Keep:
    """Which checkpoints of a tag stay: the last ones, every n-th step, the best by a metric (lowest)."""

    last: int = 0
    every: int = 0
    best: str = ""

    def surplus(self, places: list[Path], metrics_of: Callable[[Path], Mapping[str, float]]) -> list[Path]:
        """Those of `places` (oldest step first) that may go; none when `last` is 0."""
        if self.last <= 0:
            return []
        going = places[: -self.last]
        if self.every > 0:
            going = [place for place in going if int(place.name[5:]) % self.every]
        if self.best:
            scores = {place: metrics_of(place).get(self.best) for place in places}
            known = {place: score for place, score in scores.items() if score is not None}
            if known:
                best = min(known, key=known.__getitem__)
                going = [place for place in going if place != best]
        return going


@dataclass
class Finished:
    """A write that is over: what was saved, how long it took, and what had to go for it."""

    saved: Saved
    step: int
    seconds: float
    removed: list[Path]


class Saver:
    """Writes the checkpoints of one tag, which lie in `directory`."""

    def __init__(self, directory: Path, keep: Keep) -> None:
        self.directory, self.keep = directory, keep
        self._own: list[Path] = []
        self._measured: dict[str, dict[str, float]] = {}
        self._thread: threading.Thread | None = None
        self._finished: list[Finished] = []
        self._error: BaseException | None = None

    def begin(self, resumed: Path | None) -> Path | None:
        """Take over the directory: what a killed trainer left half written goes.

        A run that goes on from `resumed` owns the checkpoints up to it. One that starts anew never
        overwrites another's: their directory is renamed; returns its new name.
        """
        for place in self.directory.glob("step_*"):
            if re.fullmatch(r"step_\d+\.(tmp|old)", place.name):
                shutil.rmtree(place, ignore_errors=True)
        there = find_checkpoints(self.directory.parent, self.directory.name)
        if resumed in there:
            self._own = there[: there.index(resumed) + 1]
            with suppress(OSError, ValueError):
                self._measured = json.loads((self.directory / MEASURED).read_text())
            return None
        if not there:
            return None
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(there[-1].stat().st_mtime))
        aside = self.directory.with_name(f"{self.directory.name[:40]}.until-{stamp}")
        link = self.directory.parent / "latest.pt"
        newest = link.resolve()
        self.directory.rename(aside)
        if newest.parent == self.directory:
            replace_link(link, aside / newest.name)
        return aside

    def metrics_of(self, place: Path) -> dict[str, float]:
        """What is known of a checkpoint: saved with it, or measured later."""
        return {**read_meta(place)["metrics"], **self._measured.get(place.name, {})}

    def measured(self, place: Path, metrics: Mapping[str, float]) -> None:
        """Remember what was measured of a checkpoint, also for a run that goes on from it."""
        kept = {one.name for one in self._own}
        self._measured = {name: old for name, old in self._measured.items() if name in kept}
        self._measured[place.name] = dict(metrics)
        fresh = self.directory / f"{MEASURED}.tmp"
        fresh.write_text(json.dumps(self._measured))
        fresh.replace(self.directory / MEASURED)

    def newest(self) -> Path | None:
        """The newest checkpoint on disk that belongs to this run."""
        return self._own[-1] if self._own else None

    @property
    def writing(self) -> bool:
        """Whether a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, step: int, write: Callable[[], Saved]) -> None:
        """Run `write` in the background, after the one before it. It must own all it reads."""
        self._join()
        self._thread = threading.Thread(target=self._run, args=(step, write), name="saver", daemon=True)
        self._thread.start()

    def poll(self) -> list[Finished]:
        """Writes that ended since the last call. Raises what one of them raised (OSError: disk full)."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        done, self._finished = self._finished, []
        return done

    def wait(self) -> list[Finished]:
        """`poll` once nothing is under way any more."""
        self._join()
        return self.poll()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, step: int, write: Callable[[], Saved]) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)  # of this thread alone
        started = time.monotonic()
        try:
            saved = write()
            self._own = [place for place in self._own if place != saved.path] + [saved.path]
            removed = self.keep.surplus(self._own, self.metrics_of)
            for place in removed:
                shutil.rmtree(place, ignore_errors=True)
                self._own.remove(place)
            self._finished.append(Finished(saved, step, time.monotonic() - started, removed))
        except BaseException as error:
            self._error = error


def own_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, in memory that training does not touch."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
