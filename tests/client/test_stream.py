"""Following a run: everything once, in order, also when connections break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nanochat_client import ConnectionFailed, NotFound
from nanochat_client.stream import End, Log, Metric, State
from nanochat_client.types import RunState
from tests.client.conftest import Either, Relay, put_events, put_log
from tests.server.fake_worker import FakeWorker
from tests.services import Service, free_port


def metric(step: int) -> dict[str, Any]:
    return {"kind": "metric", "step": step, "values": {"train/loss": 1.0 / step}}


def test_a_stream_brings_log_metrics_and_states_until_the_end(either: Either, worker: FakeWorker) -> None:
    run = either.create_run("tokenizer")
    claim = worker.claim()
    put_log(worker, claim, "one\n")
    put_events(worker, claim, metric(1))
    items = []
    for item in either.follow(run.id):
        items.append(item)
        if item == Log(0, "one\n"):
            put_log(worker, claim, "tw\u00f6\n")
            put_events(worker, claim, metric(2))
            worker.finish(claim)
    assert "".join(item.text for item in items if isinstance(item, Log)) == "one\ntw\u00f6\n"
    assert [item.step for item in items if isinstance(item, Metric)] == [1, 2]
    assert [item.run.state for item in items if isinstance(item, State)][-1] is RunState.SUCCEEDED
    assert items[-1] == End(RunState.SUCCEEDED)


def test_a_cut_connection_resumes_by_cursor_without_loss_or_duplicate(
    connect: Callable[[str], Either], relay: Relay, worker: FakeWorker
) -> None:
    client = connect(relay.url)
    run = client.create_run("tokenizer")
    claim = worker.claim()
    text, steps, expected, step = "", [], "", 0

    def more() -> None:
        nonlocal expected, step
        step += 1
        line = f"line {step} \u4e2d\u6587\n"
        expected += line
        put_log(worker, claim, line)
        put_events(worker, claim, metric(step))
        assert worker.beat_attempt(claim).status_code == 200

    more()
    for item in client.follow(run.id, channels=("log", "metric")):
        match item:
            case Log(offset=offset, text=piece):
                assert offset == len(text.encode())
                text += piece
            case Metric(step=found):
                steps.append(found)
            case _:
                continue
        if text == expected and len(steps) == step:
            if step == 4:
                assert worker.finish(claim).status_code == 200
                continue
            relay.cut()
            relay.refuse = step  # and the way back is not smooth either
            more()
    assert text == expected
    assert steps == [1, 2, 3, 4]
    assert relay.accepted >= 1 + 3 + (1 + 2 + 3)


def test_a_stream_goes_on_from_the_cursors_given(either: Either, worker: FakeWorker) -> None:
    run = either.create_run("tokenizer")
    claim = worker.claim()
    put_log(worker, claim, "seen unseen\n")
    worker.finish(claim)
    found = list(either.follow(run.id, channels=("log",), after={"log": 5}))
    assert found == [Log(5, "unseen\n"), End(RunState.SUCCEEDED)]


def test_a_run_that_does_not_exist_is_not_waited_for(either: Either) -> None:
    with pytest.raises(NotFound):
        list(either.follow("nobody"))


def test_a_service_that_stays_away_is_a_failed_connection(
    connect: Callable[[str], Either], service: Service
) -> None:
    del service
    client = connect(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionFailed, match="nanochat up"):
        list(client.follow("r1", patience_s=0.2))
