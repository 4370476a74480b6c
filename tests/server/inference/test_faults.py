"""Engines that die, hang, talk rubbish, load slowly or not at all, and readers that are slow: with a stub."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import psutil
import pytest

from server.inference import stream
from server.inference.engine_process import EngineProcess
from server.settings import Settings
from tests.server.inference.conftest import MODEL_ID, insert, manager
from tests.services import Service, command_line, eventually

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def body(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL_ID, "messages": [{"role": "user", "content": text}], "max_tokens": 5, **fields}


def ask(service: Service, text: str = "hi", **fields: Any) -> httpx.Response:
    return service.client.post("/v1/chat/completions", json=body(text, **fields))


def streamed(service: Service, **fields: Any) -> AbstractContextManager[httpx.Response]:
    return service.client.stream("POST", "/v1/chat/completions", json=body(stream=True, **fields))


def events(text: str) -> list[dict[str, Any]]:
    """The JSON of a stream's events; the last one is [DONE]."""
    *found, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in found if event.startswith("data: ")]


def pids() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [
        process.pid for process in children if "tests.server.inference.stub_engine" in command_line(process)
    ]


def engine(service: Service) -> EngineProcess:
    return next(iter(manager(service).loaded().values()))


def test_a_killed_engine_ends_its_streams_with_an_error_and_the_next_request_is_served(
    stubbed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_STEP_S", "0.01")
    with streamed(stubbed, max_tokens=1000) as answer:
        lines = answer.iter_lines()
        said = [next(lines) for _ in range(10)]
        (victim,) = pids()
        os.kill(victim, signal.SIGKILL)
        said += list(lines)
    *_, last = events("\n".join(said) + "\n")
    assert last["error"]["code"] == "engine_died" and last["error"]["type"] == "server_error"
    began = time.monotonic()
    assert ask(stubbed).json()["usage"]["completion_tokens"] == 5
    assert time.monotonic() - began < 5
    assert pids() != [victim]
    assert engine(stubbed).numbers.counters["engine_deaths"] == 1
    assert engine(stubbed).numbers.counters["engine_starts"] == 2


@pytest.mark.parametrize("word", ["die", "junk"])
def test_an_engine_that_dies_or_talks_rubbish_is_503_and_replaced(stubbed: Service, word: str) -> None:
    answer = ask(stubbed, word)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_died")
    assert answer.headers["retry-after"] == "1" and "x-should-retry" not in answer.headers
    assert ask(stubbed).status_code == 200


def test_an_engine_that_owes_an_answer_and_is_silent_is_killed(
    stubbed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(stubbed)
    engine(stubbed)._hang_s = 0.2
    answer = ask(stubbed, "hang")
    assert answer.status_code == 503 and "hung" in answer.json()["error"]["message"]
    assert ask(stubbed).status_code == 200


def test_what_a_broken_engine_said_last_is_in_the_error(
    stubbed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_BROKEN", "1")
    answer = ask(stubbed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_load_failed")
    assert "this model is broken" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    monkeypatch.delenv("STUB_BROKEN")
    assert ask(stubbed).status_code == 200


def test_requests_that_come_while_a_model_loads_share_its_load(
    stubbed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_LOAD_S", "0.3")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: ask(stubbed, str(number)), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert engine(stubbed).numbers.counters["engine_starts"] == 1


def test_a_stream_is_kept_alive_while_its_model_loads(
    stubbed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.1)
    monkeypatch.setenv("STUB_LOAD_S", "0.6")
    answer = ask(stubbed, stream=True)
    assert answer.text.startswith(": ping\n\n")
    assert [event["choices"][0]["finish_reason"] for event in events(answer.text)][-1] == "length"


def test_a_silent_stream_gets_pings_between_its_chunks(
    stubbed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.05)
    monkeypatch.setenv("STUB_STEP_S", "0.3")
    answer = ask(stubbed, stream=True, max_tokens=2)
    assert answer.text.count(": ping\n\n") >= 2
    assert len(events(answer.text)) == 4


def test_a_reader_that_takes_nothing_is_cut_off(stubbed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(stubbed)
    monkeypatch.setattr(stream, "STALLED_S", 0.2)
    monkeypatch.setattr(stream, "PING_S", 0.05)
    with streamed(stubbed, max_tokens=1_000_000) as silent:
        lines = silent.iter_lines()
        next(lines)
        eventually(lambda: not engine(stubbed).busy, 20)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert ask(stubbed).status_code == 200


class TestImpatient:
    """A server whose requests wait 0.2 s for a load; 4 sequences per engine, which is idle after 0.5 s."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        changes = {"engine_load_wait_s": 0.2, "engine_queue": 4, "engine_idle_s": 0.5}
        return settings.model_copy(update=changes)

    def test_an_idle_model_is_unloaded_and_its_process_ends(self, stubbed: Service) -> None:
        eventually(lambda: ask(stubbed).status_code == 200)
        eventually(lambda: pids() == [])
        assert manager(stubbed).loaded() == {}
        eventually(lambda: ask(stubbed).status_code == 200)

    def test_a_load_that_takes_long_is_503_and_goes_on(
        self, stubbed: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STUB_LOAD_S", "0.8")
        answer = ask(stubbed)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
        assert answer.headers["retry-after"] == "5"
        eventually(lambda: ask(stubbed).status_code == 200)
        assert engine(stubbed).numbers.counters["engine_starts"] == 1

    def test_a_full_queue_is_503_with_a_time_to_come_back(
        self, stubbed: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STUB_STEP_S", "0.02")
        eventually(lambda: ask(stubbed).status_code == 200)
        with streamed(stubbed, n=3, max_tokens=500) as one:
            lines = one.iter_lines()
            next(lines)
            refused = ask(stubbed, n=2)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert 1 <= int(refused.headers["retry-after"]) <= 120
            assert ask(stubbed, n=1).status_code == 200
        eventually(lambda: ask(stubbed, n=2).status_code == 200)
        assert ask(stubbed, n=6).status_code == 200  # more than the queue holds, but nobody else is there


def test_an_engine_that_refuses_is_overloaded(stubbed: Service) -> None:
    answer = ask(stubbed, "refuse")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")


def test_a_slow_reader_loses_nothing_and_holds_up_nobody(stubbed: Service) -> None:
    ask(stubbed)
    with streamed(stubbed, max_tokens=60_000, stream_options={"include_usage": True}) as slow:
        numbers = engine(stubbed).numbers
        assert ask(stubbed, max_tokens=50).status_code == 200
        eventually(lambda: numbers.finished["length"] >= 3, 30)  # the engine is not held up either
        found = events("".join(slow.iter_text()))
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in found if e["choices"])
    assert text == "".join(f"word{number} " for number in range(1, 60_001))
    assert found[-1]["usage"]["completion_tokens"] == 60_000
    assert len(found) < 60_000  # deltas were put together


def test_a_model_is_loaded_and_unloaded_on_request(stubbed: Service) -> None:
    view = stubbed.client.post(f"/models/{MODEL_ID}/load").json()
    assert (view["id"], view["loaded"], view["device"]) == (MODEL_ID, True, "cpu")
    assert [m["loaded"] for m in stubbed.client.get("/v1/models").json()["data"]] == [True, True]
    assert stubbed.client.post("/models/tiny-run/sft/7/unload").json()["loaded"] is False
    assert pids() == []
    assert stubbed.client.post("/models/latest/unload").status_code == 200  # nothing to do


def test_unloading_ends_the_streams_of_a_model(stubbed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_STEP_S", "0.01")
    with streamed(stubbed, max_tokens=1000) as answer:
        lines = answer.iter_lines()
        said = [next(lines) for _ in range(4)]
        stubbed.client.post("/models/latest/unload")
        said += list(lines)
    assert events("\n".join(said) + "\n")[-1]["error"]["code"] == "model_unloaded"


def test_the_model_used_least_recently_makes_room(stubbed: Service) -> None:
    place = stubbed.settings.base_dir / "other"
    place.mkdir()
    for number in (2, 3):
        insert(stubbed.settings, place, run=f"other {number}", number=number)
    for name in (MODEL_ID, "other-2", "other-3"):
        assert stubbed.client.post("/tokenize", json={"model": name, "text": "x"}).status_code == 200
    assert sorted(manager(stubbed).loaded()) == ["c0000000002", "c0000000003"]
    assert len(pids()) == 2


def test_stopping_the_server_leaves_no_engine_behind(stubbed: Service) -> None:
    ask(stubbed)
    stubbed.stop()
    assert pids() == []
