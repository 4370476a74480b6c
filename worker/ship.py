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
    by_line: bool

    def pending(self, grows: bool) -> bytes:
        """Bytes to send next; `by_line` whole lines, unless one is longer than a chunk.

        A last line without an end is sent when the file does not grow any more; of events never, as half of
        one is none.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.acked)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        last = self.kind == "log" and not grows and len(data) < CHUNK_BYTES
        if not self.by_line or last or (len(data) == CHUNK_BYTES and b"\n" not in data):
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
            _File("events", directory / "events.jsonl", events_acked, by_line=True),
            _File("log", directory / "run.log", log_acked, by_line=False),
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
                moved = sum(self._ship(file, not finishing) for file in self._files) > 0  # each of them
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

    def _ship(self, file: _File, grows: bool) -> bool:
        data = file.pending(grows)
        if not data:
            return False
        try:
            acked = self._send(file, data)
        except Refused as refused:
            if refused.code != "offset_gap" or not isinstance(refused.nearest, int):
                raise
            acked = refused.nearest
        moved = acked != file.acked
        file.acked = acked
        return moved

    def _send(self, file: _File, data: bytes) -> int:
        return self._api.ship(self._attempt_id, self._fence, file.kind, file.acked, data, self._heir)


class NodeShipper(Shipper):
    """Ships what a further node prints, line by line, because it joins the log of the run."""

    def __init__(self, api: Api, member_id: str, directory: Path) -> None:
        super().__init__(api, member_id, 0, directory)
        self._files = [_File("log", directory / "run.log", 0, by_line=True)]

    def _send(self, file: _File, data: bytes) -> int:
        return self._api.ship_node(self._attempt_id, file.acked, data)
