"""Whatever a client does with parts, the file ends with its own bytes or with a clear refusal."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.files import receive
from tests.server.files.uploads import Torn, announced, offset_of, send, settled
from tests.services import Service

SIZE = 60_000
CONTENT = b"".join(b"line %d of the text\n" % number for number in range(SIZE // 20))[:SIZE]
sizes = st.integers(0, SIZE // 2)
offsets = st.integers(0, SIZE + 100)
ACTIONS = st.one_of(
    st.tuples(st.just("send"), sizes),
    st.tuples(st.just("stream"), sizes),
    st.tuples(st.just("elsewhere"), offsets, sizes),
    st.tuples(st.just("tear"), sizes, sizes),
    st.tuples(st.just("leave"), sizes, sizes),
    st.tuples(st.just("too much"), st.integers(1, 5000)),
    st.tuples(st.just("rubbish"), st.integers(1, 5000)),
    st.tuples(st.just("announce again")),
)
REFUSALS = ("wrong_offset", "too_large", "invalid_state", "overtaken", "busy")


class Client:
    """Does what it is told, and knows what must come of it."""

    def __init__(self, service: Service, number: int) -> None:
        self.service, self.http, self.name = service, service.client, f"{number}.txt"
        self.id = announced(self.http, CONTENT, self.name, "text")
        self.torn: list[Torn] = []
        self.spoiled = self.unsure = False

    def act(self, what: str, *numbers: int) -> None:
        before = offset_of(self.http, self.id)
        answer = self.send(what, before, *numbers)
        after = offset_of(self.http, self.id)
        assert before <= after <= SIZE, "what is acknowledged stays"
        if answer is None:
            return
        assert answer.status_code in (200, 201, 409, 413), answer.text
        if answer.status_code == 200 and what != "announce again":
            assert answer.json()["offset"] == int(answer.headers["upload-offset"]) >= before
        elif answer.status_code >= 400:
            assert answer.json()["code"] in REFUSALS, answer.text

    def send(self, what: str, at: int, *numbers: int) -> httpx.Response | None:
        first = numbers[0] if numbers else 0
        match what:
            case "send":
                return send(self.http, self.id, CONTENT[at : at + first], at)
            case "stream":
                data = CONTENT[at : at + first]
                return send(self.http, self.id, (data[i : i + 777] for i in range(0, len(data), 777)), at)
            case "elsewhere":
                return send(self.http, self.id, CONTENT[first : first + numbers[1]], first)
            case "tear" | "leave":
                length = min(first, SIZE - at)
                torn = Torn(self.service, self.id, at, length)
                torn.send(CONTENT[at : at + min(length, numbers[1])])
                if what == "tear":
                    torn.cut()
                self.torn.append(torn)
                return None
            case "too much":
                return send(self.http, self.id, CONTENT[at:] + b"x" * first, at)
            case "rubbish":
                answer = send(self.http, self.id, bytes(255 - b for b in CONTENT[at : at + first]), at)
                self.spoiled |= answer.status_code == 200 and at < SIZE
                # a torn request that was read late has stopped ours: some of it may be there
                self.unsure |= answer.status_code == 409 and answer.json()["code"] == "overtaken"
                return answer
            case _:
                answer = self.http.post("/files", json=self.body())
                assert answer.status_code == 200 and answer.json()["id"] == self.id
                return answer

    def body(self) -> dict[str, Any]:
        file = self.http.get(f"/files/{self.id}").json()
        return {key: file[key] for key in ("name", "kind", "size", "sha256")}

    def finish(self) -> Any:
        """Send what is left until all of it is there."""
        for _ in range(100):
            if (at := offset_of(self.http, self.id)) == SIZE:
                break
            send(self.http, self.id, CONTENT[at:], at)
        for torn in self.torn:
            torn.cut()
        return settled(self.http, self.id)


@pytest.mark.timeout(300)
def test_a_file_ends_with_its_bytes_or_with_a_refusal(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "SYNC_BYTES", 10_000)
    monkeypatch.setattr(receive, "WRITE_BYTES", 3_000)
    numbers = itertools.count()

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(ACTIONS, max_size=8))
    def try_one(actions: list[tuple[Any, ...]]) -> None:
        client = Client(service, next(numbers))
        for action in actions:
            if offset_of(client.http, client.id) == SIZE:
                break
            client.act(*action)
        file = client.finish()
        place = service.settings.base_dir / file["path"]
        if client.unsure:
            assert file["state"] in ("ready", "rejected")
        elif client.spoiled:
            assert file["state"] == "rejected" and "sha256" in file["message"]
            assert not place.exists()
        else:
            assert file["state"] == "ready", file
            assert place.read_bytes() == CONTENT

    try_one()
    left = list((service.settings.base_dir / "files" / ".parts").iterdir())
    assert left == []
