"""Artefacts of an attempt and the storage that the hosts share: inputs come before the trainer starts,
checkpoints go while it works. Without NANOCHAT_STORAGE_URL nothing of this runs: all use one base directory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from nanochat import files
from nanochat.paths import STAGE_DIRS
from nanochat.stages import STAGES
from nanochat.storage import MANIFEST, STEP, Storage, StorageError
from nanochat_client.types import Claim

log = logging.getLogger(__name__)
LOOK_S = 0.5
#: a checkpoint that the server has heard of may still be on its way to the storage
FETCH_TRIES, FETCH_PAUSE_S = 6, 2.0
LONGEST_PAUSE_S = 30.0


def needed(claim: Claim, storage: Storage) -> list[str]:
    """Artefacts that the attempt reads, below the base directory: its inputs, and where the run goes on."""
    named = [str(claim.config.get(item.field) or "") for item in STAGES[claim.stage].inputs]
    named.append(str(claim.config.get("resume_from") or ""))
    found = [path for path in named if "/" in path and not PurePosixPath(path).is_absolute()]
    if claim.config.get("resume_from") == "auto" and claim.stage in STAGE_DIRS:
        found += storage.steps(f"{STAGE_DIRS[claim.stage]}/{claim.run_id}")[-1:]
    return found


def uploads(claim: Claim, storage: Storage, base: Path) -> list[str]:
    """Files of users that the attempt reads, relative to the base directory."""
    found: list[str] = []
    for path in files.named(claim.config, base):
        # files/<kind>/<name>, or all of a kind
        found += [path] if path.count("/") > 1 else storage.files(path)
    return found


class Fetch(threading.Thread):
    """Brings what the attempt reads. `error`: why it could not; None once it has ended well."""

    def __init__(self, storage: Storage, claim: Claim, base: Path) -> None:
        super().__init__(name=f"fetch-{claim.attempt_id}", daemon=True)
        self._storage, self._claim, self._base = storage, claim, base
        self.error: StorageError | None = None

    def run(self) -> None:
        for left in reversed(range(FETCH_TRIES)):
            try:
                for path in needed(self._claim, self._storage):
                    if self._storage.pull(path):
                        log.info("run %s: fetched %s", self._claim.run_id, path)
                for path in uploads(self._claim, self._storage, self._base):
                    if self._storage.pull_file(path):
                        log.info("run %s: fetched %s", self._claim.run_id, path)
                self.error = None
                return
            except (StorageError, OSError) as error:
                self.error = StorageError(str(error))
            if left:
                time.sleep(FETCH_PAUSE_S)


class Push(threading.Thread):
    """Stores the run's checkpoints as they appear, and removes those that its trainer has removed.

    What cannot be stored now is tried again, for as long as it takes. `complete`: all of it is there.
    """

    def __init__(self, storage: Storage, claim: Claim, base: Path) -> None:
        super().__init__(name=f"push-{claim.attempt_id}", daemon=True)
        self._storage, self._base = storage, base
        self._tag = f"{STAGE_DIRS[claim.stage]}/{claim.run_id}" if claim.stage in STAGE_DIRS else ""
        self._stored: dict[str, float] = {}
        self._finish, self._abandon = threading.Event(), threading.Event()
        self.complete = not self._tag

    def finish(self) -> None:
        """Nothing more will be written: store what is left and end."""
        self._finish.set()

    def abandon(self) -> None:
        """End soon, whatever is left. The next attempt of the run on this host stores it."""
        self._abandon.set()
        self._finish.set()

    def run(self) -> None:
        pause_s = LOOK_S
        while not self.complete and not self._abandon.is_set():
            finishing = self._finish.is_set()
            try:
                self._store()
                self.complete, pause_s = finishing, LOOK_S
            except (StorageError, OSError) as error:
                log.warning("a checkpoint is not stored yet: %s", error)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                self._abandon.wait(pause_s)
                continue
            if not finishing:
                self._finish.wait(pause_s)

    def _store(self) -> None:
        there = self._whole()
        for path, written in there.items():
            if self._stored.get(path) != written and not self._abandon.is_set():
                try:
                    self._storage.push(path)
                except FileNotFoundError:  # its trainer removed it meanwhile
                    continue
                self._stored[path] = written
        for path in set(self._stored) - set(there):
            self._storage.remove(path)
            del self._stored[path]

    def _whole(self) -> dict[str, float]:
        """The run's whole artefacts here, with the time their manifests were written."""
        root, found = self._base / self._tag, {}
        for manifest in [root / MANIFEST, *sorted(root.glob(f"step_*/{MANIFEST}"))]:
            place = manifest.parent
            if place != root and not STEP.fullmatch(place.name):
                continue
            try:
                found[str(place.relative_to(self._base))] = manifest.stat().st_mtime
            except FileNotFoundError:
                continue
        return found


def wait_for(thread: threading.Thread, while_waiting: Callable[[], object], poll_s: float = 0.1) -> None:
    """Until the thread has ended; `while_waiting` is called now and then, e.g. to renew a lease."""
    while thread.is_alive():
        while_waiting()
        thread.join(poll_s)
