"""The worker's side of /internal: typed calls over HTTP.

Losing sight of the server is no error for a run: callers that must get through use `insist`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel

from nanochat_client.types import (
    Acked,
    Beat,
    BeatAnswer,
    Claim,
    ClaimRequest,
    Finish,
    Finished,
    Gathered,
    Gathering,
    HostStats,
    WorkerBeat,
    WorkerRegister,
    WorkerRegistered,
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)


class Refused(Exception):
    """The server understood and said no. `code`: stale_fence, not_claimable, offset_gap, not_found, …"""

    def __init__(self, status: int, code: str, detail: str, nearest: Any = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.status, self.code, self.nearest = status, code, nearest


class Away(Exception):
    """The server did not answer, or answered that it cannot now: try again later."""


class Api:
    """One connection pool to one server. Thread-safe."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/internal",
            headers={"authorization": f"Bearer {token}"},
            timeout=15,
            trust_env=urlsplit(url).hostname not in LOOPBACK,  # this machine is never behind a proxy
        )

    def close(self) -> None:
        self._http.close()

    def register(self, body: WorkerRegister) -> WorkerRegistered:
        return self._call(WorkerRegistered, "POST", "/workers", body)

    def report(self, worker_id: str, stats: HostStats) -> None:
        self._send("POST", f"/workers/{worker_id}/beat", WorkerBeat(stats=stats))

    def claim(self, attempt_id: str, worker_id: str) -> Claim:
        return self._call(Claim, "POST", f"/attempts/{attempt_id}/claim", ClaimRequest(worker_id=worker_id))

    def beat(self, attempt_id: str, body: Beat) -> BeatAnswer:
        return self._call(BeatAnswer, "POST", f"/attempts/{attempt_id}/beat", body)

    def finish(self, attempt_id: str, body: Finish) -> Finished:
        return self._call(Finished, "POST", f"/attempts/{attempt_id}/finish", body)

    def gather(self, attempt_id: str, body: Gathering) -> Gathered:
        return self._call(Gathered, "POST", f"/attempts/{attempt_id}/gather", body)

    def join(self, member_id: str, worker_id: str) -> Claim:
        return self._call(Claim, "POST", f"/members/{member_id}/join", ClaimRequest(worker_id=worker_id))

    def beat_node(self, member_id: str) -> Gathered:
        return self._call(Gathered, "POST", f"/members/{member_id}/beat", None)

    def finish_node(self, member_id: str, body: Finish) -> None:
        self._send("POST", f"/members/{member_id}/finish", body)

    def ship(
        self, attempt_id: str, fence: int, kind: str, offset: int, data: bytes, heir: str | None = None
    ) -> int:
        """Send bytes of the attempt's `log` or `events`; returns how many the server holds now.

        `heir`: the attempt that `fence` belongs to, when that goes on in place of this one.
        """
        method = "PUT" if kind == "log" else "POST"
        params: dict[str, int | str] = {"offset": offset, "fence": fence}
        params |= {"heir": heir} if heir else {}
        answer = self._send(method, f"/attempts/{attempt_id}/{kind}", data, params)
        return Acked.model_validate_json(answer.content).acked

    def ship_node(self, member_id: str, offset: int, data: bytes) -> int:
        """Send lines of a further node's log; returns how many bytes the server holds now."""
        answer = self._send("PUT", f"/members/{member_id}/log", data, {"offset": offset})
        return Acked.model_validate_json(answer.content).acked

    def _call(self, kind: type[Answer], method: str, path: str, body: BaseModel | None) -> Answer:
        return kind.model_validate_json(self._send(method, path, body).content)

    def _send(
        self,
        method: str,
        path: str,
        body: BaseModel | bytes | None,
        params: dict[str, int | str] | None = None,
    ) -> httpx.Response:
        raw = isinstance(body, bytes)
        content = body if isinstance(body, bytes) else body.model_dump_json().encode() if body else b""
        headers = {"content-type": "application/octet-stream" if raw else "application/json"}
        try:
            answer = self._http.request(method, path, content=content, headers=headers, params=params)
        except httpx.HTTPError as error:
            raise Away(f"{type(error).__name__}: {error}") from None
        if answer.is_success:
            return answer
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Away(f"the server answered {answer.status_code}")
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> Refused:
    try:
        document = answer.json()
    except ValueError:
        document = {}
    errors = document.get("errors") or [{}]
    return Refused(
        answer.status_code,
        document.get("code", "refused"),
        document.get("detail", answer.text[:200]),
        errors[0].get("nearest"),
    )


def insist(call: Callable[[], T], give_up: Callable[[], bool] = lambda: False, longest_s: float = 5.0) -> T:
    """`call` until the server answers, with growing pauses. Raises Refused, and Away once `give_up()`."""
    pause_s = 0.1
    while True:
        try:
            return call()
        except Away:
            if give_up():
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, longest_s)
