"""Shipping an attempt's files to the server by byte offset, while they grow.

The files are the truth: what the server has not acknowledged is sent again, for as long as it takes.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from worker.api import Api, Away, Refused

log = logging.getLogger(__name__)
CHUNK_BYTES = 512 * 1024
IDLE_S = 0.1


@dataclass
class _File:
    kind: str
    path: Path
    acked: int

    def pending(self) -> bytes:
        """Bytes to send next; of events whole lines, unless one is longer than a chunk."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.acked)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        if self.kind == "log" or (len(data) == CHUNK_BYTES and b"\n" not in data):
            return data
        return data[: data.rfind(b"\n") + 1]


class Shipper(threading.Thread):
    """Ships `run.log` and `events.jsonl` of one attempt until `finish` and nothing is left.

    `fenced` is set when the server refused our fence: somebody else has the attempt now.
    """

    def __init__(
        self,
        api: Api,
        attempt_id: str,
        fence: int,
        directory: Path,
        log_acked: int = 0,
        events_acked: int = 0,
        heir: str | None = None,
    ) -> None:
        super().__init__(name=f"ship-{attempt_id}", daemon=True)
        self._api, self._attempt_id, self._fence, self._heir = api, attempt_id, fence, heir
        self._files = [
            _File("events", directory / "events.jsonl", events_acked),
            _File("log", directory / "run.log", log_acked),
        ]
        self._finish = threading.Event()
        self._abandon = threading.Event()
        self.fenced = threading.Event()
        self.complete = False
        """Everything there was is durable on the server."""

    def finish(self) -> None:
        """The files do not grow any more: ship what is left and end."""
        self._finish.set()

    def abandon(self) -> None:
        """End soon, whatever is left; the files stay."""
        self._abandon.set()

    def run(self) -> None:
        pause_s = IDLE_S
        while not self.fenced.is_set() and not self._abandon.is_set():
            finishing = self._finish.is_set()  # read before the files: what was written before is shipped
            try:
                moved = sum(self._ship(file) for file in self._files) > 0  # all of them, not only the first
                pause_s = IDLE_S
            except Away:
                pause_s = min(pause_s * 2, 5.0)
                self._abandon.wait(pause_s)
                continue
            except Refused as refused:
                if refused.code == "stale_fence" or refused.status == 404:
                    self.fenced.set()
                else:  # whatever it is, sending it again would not help; the files stay
                    log.error("attempt %s: the server does not take its files: %s", self._attempt_id, refused)
                return
            if not moved:
                if finishing:
                    self.complete = True
                    return
                self._finish.wait(IDLE_S)

    def _ship(self, file: _File) -> bool:
        data = file.pending()
        if not data:
            return False
        try:
            acked = self._api.ship(self._attempt_id, self._fence, file.kind, file.acked, data, self._heir)
        except Refused as refused:
            if refused.code != "offset_gap" or not isinstance(refused.nearest, int):
                raise
            acked = refused.nearest
        moved = acked != file.acked
        file.acked = acked
        return moved
