"""An inbox is bounded and loses nothing, however its reader and writer take turns."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.inference.connection import Connection
from server.inference.errors import OpenAIError, engine_died
from server.inference.inbox import MAX_FRAMES, Frame, Inbox, Lane
from server.inference.numbers import ModelNumbers


def delta(index: int, number: int, logprobs: bool) -> Frame:
    told = [{"token": f"{number}", "logprob": -1.0, "bytes": [], "top": []}] if logprobs else None
    return {"op": "delta", "index": index, "text": f"{number} ", "tokens": number, "logprobs": told}


@given(
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 400)), max_size=12),
    reads=st.sets(st.integers(0, 11)),
    logprobs=st.booleans(),
)
def test_what_is_read_is_what_was_written(
    turns: list[tuple[int, int]], reads: set[int], logprobs: bool
) -> None:
    async def run() -> list[Frame]:
        inbox, got, said = Inbox(), list[Frame](), [0, 0, 0]
        for turn, (index, count) in enumerate(turns):
            for _ in range(count):
                said[index] += 1
                inbox.push(delta(index, said[index], logprobs))
                assert len(inbox._frames) <= MAX_FRAMES
            if turn in reads:
                got += await inbox.take()
        for index in range(3):
            inbox.push({"op": "finish", "index": index, "reason": "stop", "tokens": said[index]})
        return got + await inbox.take()

    frames = asyncio.run(run())
    for index in range(3):
        mine = [frame for frame in frames if frame["index"] == index]
        total = sum(count for which, count in turns if which == index)
        assert mine[-1]["op"] == "finish" and all(frame["op"] == "delta" for frame in mine[:-1])
        assert "".join(frame["text"] for frame in mine[:-1]) == "".join(f"{n} " for n in range(1, total + 1))
        told = [one["token"] for frame in mine[:-1] for one in frame["logprobs"] or ()]
        assert told == ([str(n) for n in range(1, total + 1)] if logprobs else [])
        assert [frame["tokens"] for frame in mine] == sorted(frame["tokens"] for frame in mine)


async def test_a_failure_comes_after_what_was_said() -> None:
    inbox = Inbox()
    inbox.push(delta(0, 1, False))
    inbox.fail(engine_died())
    inbox.fail(OpenAIError(400, "later"))
    assert len(await inbox.take()) == 1
    for _ in range(2):
        with pytest.raises(OpenAIError, match="died"):
            await inbox.take()


async def test_a_reader_that_waits_is_woken_by_a_frame_or_a_nudge() -> None:
    inbox = Inbox()
    for act, found in ((inbox.wake, 0), (lambda: inbox.push(delta(0, 1, False)), 1)):
        waiting = asyncio.create_task(inbox.take())
        await asyncio.sleep(0)
        act()
        assert len(await waiting) == found


class Sink(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        del data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@given(cuts=st.lists(st.integers(1, 40), max_size=30))
def test_frames_are_whole_however_the_socket_cuts_them(cuts: list[int]) -> None:
    numbers, inbox = ModelNumbers(), Inbox()
    connection = Connection(lambda frame: None, lambda: None)
    connection.connection_made(Sink())
    request_id = connection.open(Lane(inbox, 4, 1, numbers, started=0.0))
    frames = [{**delta(0, number, False), "id": request_id} for number in range(1, 6)]
    frames.append({"op": "finish", "id": request_id, "index": 0, "reason": "stop", "tokens": 5})
    frames.append({"op": "delta", "id": "of nobody", "index": 0, "text": "", "tokens": 1})
    data = b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)
    for cut in cuts:
        connection.data_received(data[:cut]) if data[:cut] else None
        data = data[cut:]
    if data:
        connection.data_received(data)
    assert [frame["index"] for frame in inbox._frames] == [4] * 6
    assert numbers.counters["generation_tokens"] == 5 and numbers.finished == {"stop": 1}
    assert sum(numbers.inter_token.counts) == 4


async def test_rubbish_closes_the_connection() -> None:
    for line in (b"no json\n", b"[]\n", b'{"op": "delta", "id": "1"}\n'):
        connection, sink = Connection(lambda frame: None, lambda: None), Sink()
        connection.connection_made(sink)
        connection.open(Lane(Inbox(), 0, 1, ModelNumbers(), started=0.0))
        connection.data_received(line)
        assert sink.closed
