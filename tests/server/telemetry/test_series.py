"""A series is what was measured, whole or thinned, packed or not."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.db import Database
from server.models import Run
from server.settings import Settings
from server.telemetry import series
from server.telemetry.blocks import BLOCK, COARSE, FINE, Columns, ends, level, pack, thin, unpack
from server.telemetry.downsample import NAN, kept
from server.telemetry.lines import TrainerEvent
from tests.server.fake_worker import FakeWorker
from tests.server.telemetry.test_ingest import Shipping, begin, metric
from tests.services import Service

VALUES = st.lists(st.just(NAN) | st.sampled_from([1.0, 2.0]) | st.floats(-1e6, 1e6), min_size=1, max_size=400)


def columns(values: Sequence[float]) -> Columns:
    return Columns(list(range(len(values))), [1e9 + at for at in range(len(values))], list(values))


def numbers(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


@given(values=VALUES, limit=st.integers(4, 100))
def test_fewer_points_keep_the_extremes_the_ends_and_the_order(values: list[float], limit: int) -> None:
    places = kept(values, limit)
    assert len(places) <= limit
    assert places == kept(values, limit) == sorted(set(places))
    assert (places[0], places[-1]) == (0, len(values) - 1)
    if found := numbers(values):
        few = numbers([values[place] for place in places])
        assert (min(few), max(few)) == (min(found), max(found))


def test_a_short_series_is_not_touched() -> None:
    assert kept([float(i % 7) for i in range(999)], 1000) == list(range(999))


@given(VALUES)
def test_a_level_is_the_same_from_all_points_and_from_a_finer_level(values: list[float]) -> None:
    points = columns(values)
    (block,) = pack(points)
    assert repr(unpack(block.points)) == repr(points)
    for sizes, data in ((FINE, block.fine), (COARSE, block.coarse)):
        assert ends(block.count, data).steps == sorted({0, len(values) - 1})
        for size in sizes:
            assert repr(level(block.count, data, size)) == repr(thin(points, size))


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    made = Database(Settings(database_url=database_url).sqlalchemy_url)
    async with made.write() as session:
        run = Run(id="r1", stage="base", name="n", config={}, gpus=0, restarts_left=0)
        session.add(run)
    yield made
    await made.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_series_is_what_a_dictionary_would_hold(
    db: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(series, "TAIL_CHUNKS", 3)
    truth: dict[str, dict[int, float]] = {"a": {}, "b": {}}
    seq = step = 0
    for _ in range(15):
        events = []
        for _ in range(chance.choice([1, 3, 700])):
            seq, step = seq + 1, max(0, step + chance.choice([1, 1, 1, 2, -1]))
            values = {key: chance.choice([chance.random(), None]) for key in chance.choice(["a", "b", "ab"])}
            events.append((seq, TrainerEvent("metric", float(seq), step, dict(values))))
            for key, value in values.items():
                truth[key][step] = NAN if value is None else value
        async with db.write() as session:
            head = await series.head_of(session, "r1")
            head.keys = ["a", "b"]
            await series.append(session, head, 1, events)
            if chance.random() < 0.2:
                seq, step = seq + 1, chance.randrange(step + 1)
                await series.rewind(session, head, seq, step)
                truth = {k: {s: v for s, v in points.items() if s <= step} for k, points in truth.items()}
        async with db.read() as session:
            found = await series.read(session, "r1", [], series.ALL)
        expected = {key: sorted(points.items()) for key, points in truth.items() if points}
        assert repr({k: list(zip(p.steps, p.values, strict=True)) for k, p in found.items()}) == repr(
            expected
        )


async def test_packed_or_not_the_same_question_has_the_same_answer(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    values = [chance.choice([chance.gauss(0, 1), NAN]) for _ in range(3 * BLOCK - 100)]
    questions = (100, 999, 1000, 5000, 20_000)
    answers = []
    for tail_events in (1, 1000, 10**9):
        monkeypatch.setattr(series, "TAIL_EVENTS", tail_events)
        monkeypatch.setattr(series, "TAIL_CHUNKS", 10**9)
        async with db.write() as session:
            run = Run(id=f"r-{tail_events}", stage="base", name="n", config={}, gpus=0, restarts_left=0)
            session.add(run)
            await session.flush()
            head = await series.head_of(session, run.id)
            head.keys = ["a"]
            for start in range(0, len(values), 999):
                events = [
                    (at + 1, TrainerEvent("metric", 1.0, at, {"a": None if math.isnan(value) else value}))
                    for at, value in enumerate(values[start : start + 999], start)
                ]
                await series.append(session, head, 1, events)
        async with db.read() as session:
            answers.append([(await series.read(session, run.id, [], most))["a"] for most in questions])
    assert repr(answers[0]) == repr(answers[1]) == repr(answers[2])
    for most, points in zip(questions, answers[0], strict=True):
        assert min(most, len(values)) // 2 <= len(points) <= most
        assert points.steps == sorted(set(points.steps))
        assert (points.steps[0], points.steps[-1]) == (0, len(values) - 1)
        assert (min(numbers(points.values)), max(numbers(points.values))) == (
            min(numbers(values)), max(numbers(values)),
        )  # fmt: skip


@pytest.mark.parametrize("tail_events", [1000, 10**9], ids=["packed", "not packed"])
async def test_a_part_of_a_series_comes_as_fine_as_asked_and_with_its_neighbours(
    db: Database, monkeypatch: pytest.MonkeyPatch, tail_events: int
) -> None:
    monkeypatch.setattr(series, "TAIL_EVENTS", tail_events)
    run_id = f"part-{tail_events}"
    async with db.write() as session:
        session.add(Run(id=run_id, stage="base", name="n", config={}, gpus=0, restarts_left=0))
        await session.flush()
        head = await series.head_of(session, run_id)
        head.keys = ["a", "rare"]
        for start in range(0, 3 * BLOCK, 999):
            events = [
                (
                    at + 1,
                    TrainerEvent(
                        "metric", 1.0 + at, at, {"a": float(at)} | ({"rare": 1.0} if at == 5 else {})
                    ),
                )
                for at in range(start, min(start + 999, 3 * BLOCK))
            ]
            await series.append(session, head, 1, events)
    async with db.read() as session:
        for first, last in ((10, 20), (BLOCK - 3, BLOCK + 3), (2 * BLOCK + 1, 3 * BLOCK - 2)):
            found = await series.read(session, run_id, [], 10_000, (first, last))
            assert found["a"].steps == list(range(first - 1, last + 2))
            assert found["a"].values == [float(step) for step in found["a"].steps]
        few = (await series.read(session, run_id, ["a"], 100, (500, 9000)))["a"]
        assert 50 <= len(few) <= 100 and 0 < few.steps[0] <= 500 and few.steps[-1] >= 9000
        beyond = await series.read(session, run_id, ["a"], 100, (10**6, 10**7))
        assert all(len(points) <= 1 for points in beyond.values())


def test_events_and_streams_hold_metrics_in_their_place(service: Service) -> None:
    shipping = begin(service, FakeWorker(service))
    line = {"kind": "metric", "step": 1, "values": {"a": None, "b": 2.0}, "note": "kept"}
    warning = {"kind": "warning", "message": "hm"}
    shipping.events(line, warning, metric(2, a=3.0), warning, metric(3, a=4.0))
    url = f"/runs/{shipping.run_id}/events"
    events = shipping.get(url)["items"]
    assert [(e["seq"], e["kind"], e["step"]) for e in events] == [
        (1, "metric", 1), (2, "warning", None), (3, "metric", 2), (4, "warning", None), (5, "metric", 3),
    ]  # fmt: skip
    assert events[0]["data"] == {"note": "kept", "values": {"a": None, "b": 2.0}}
    page = shipping.get(url, kind="metric", after=1, limit=1)
    assert ([e["seq"] for e in page["items"]], page["next_cursor"]) == ([3], "3")
    found = {s["key"]: (s["x"], s["y"]) for s in shipping.get(f"/runs/{shipping.run_id}/metrics")["series"]}
    assert found == {"a": ([1, 2, 3], [None, 3.0, 4.0]), "b": ([1], [2.0])}


def test_a_resume_far_back_cuts_packed_blocks(service: Service) -> None:
    worker = FakeWorker(service)
    first = begin(service, worker)
    for start in range(1, 9001, 3000):
        first.events(*[metric(step, a=float(step)) for step in range(start, start + 3000)])
    worker.finish(first.claim, "failed", reason="killed_signal")
    second = Shipping(service, worker, worker.claim())
    again: list[dict[str, Any]] = [metric(step, a=-float(step)) for step in range(4101, 4201)]
    second.events({"kind": "phase", "phase": "resume", "step": 4100}, *again)
    (found,) = second.get(f"/runs/{second.run_id}/metrics", max_points=100_000)["series"]
    assert found["x"] == list(range(1, 4201))
    assert found["y"] == [*map(float, range(1, 4101)), *(-float(step) for step in range(4101, 4201))]
