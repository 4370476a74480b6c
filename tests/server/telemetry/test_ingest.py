"""What a worker ships is stored once, whole, and whatever it is, it breaks nothing."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.telemetry import ingest
from server.telemetry.lines import parse, whole_lines
from tests.server.fake_worker import FakeWorker
from tests.services import Service


class Shipping:
    """A claimed attempt and its two endpoints."""

    def __init__(self, service: Service, worker: FakeWorker, claim: dict[str, Any]) -> None:
        self.service, self.worker, self.claim = service, worker, claim
        self.run_id, self.url = claim["run_id"], f"/internal/attempts/{claim['attempt_id']}"
        self.offset = 0

    def log(self, data: bytes, offset: int, fence: int | None = None) -> Any:
        params = {"offset": offset, "fence": self.claim["fence"] if fence is None else fence}
        return self.service.internal.put(f"{self.url}/log", content=data, params=params)

    def raw_events(self, data: bytes, offset: int) -> Any:
        params = {"offset": offset, "fence": self.claim["fence"]}
        return self.service.internal.post(f"{self.url}/events", content=data, params=params)

    def events(self, *events: dict[str, Any]) -> None:
        data = b"".join(json.dumps({"t": 1.0, **event}).encode() + b"\n" for event in events)
        answer = self.raw_events(data, self.offset)
        assert answer.status_code == 200, answer.text
        self.offset = answer.json()["acked"]

    def get(self, path: str, **params: Any) -> Any:
        answer = self.service.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def run(self) -> Any:
        return self.get(f"/runs/{self.run_id}")


def begin(service: Service, worker: FakeWorker, **body: Any) -> Shipping:
    posted = service.client.post("/runs", json={"stage": "tokenizer", **body})
    assert posted.status_code == 201, posted.text
    return Shipping(service, worker, worker.claim())


@pytest.fixture
def shipping(service: Service) -> Shipping:
    return begin(service, FakeWorker(service))


def metric(step: int, **values: Any) -> dict[str, Any]:
    return {"kind": "metric", "step": step, "values": {k.replace("__", "/"): v for k, v in values.items()}}


def test_a_replay_is_a_no_op_and_a_gap_is_told_where_to_go_on(shipping: Shipping) -> None:
    assert shipping.log(b"hello ", 0).json() == {"acked": 6}
    assert shipping.log(b"hello world", 0).json() == {"acked": 11}
    assert shipping.log(b"hello", 0).json() == {"acked": 11}
    gap = shipping.log(b"later", 20)
    assert (gap.status_code, gap.json()["code"], gap.json()["errors"][0]["nearest"]) == (
        409,
        "offset_gap",
        11,
    )
    page = shipping.get(f"/runs/{shipping.run_id}/logs")
    assert [item["text"] for item in page["items"]] == ["hello world"]
    assert (page["first"], page["last"], page["end"]) == (0, 11, 11)


def test_a_stale_fence_writes_nothing(shipping: Shipping) -> None:
    answer = shipping.log(b"late", 0, fence=shipping.claim["fence"] + 1)
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_fence")
    assert shipping.get(f"/runs/{shipping.run_id}/logs")["end"] == 0


def test_the_first_event_says_that_the_run_is_running(shipping: Shipping) -> None:
    assert shipping.run()["state"] == "starting"
    shipping.events({"kind": "phase", "phase": "train", "step": 0, "steps": 50}, metric(3, train__loss=2.5))
    run = shipping.run()
    assert (run["state"], run["step"], run["steps"], run["summary"]["train/loss"]) == ("running", 3, 50, 2.5)


def test_half_a_line_waits_for_its_end_and_nothing_is_stored_twice(shipping: Shipping) -> None:
    lines = [json.dumps({"t": 1.0, **metric(step, train__loss=1.0)}).encode() + b"\n" for step in (1, 2, 3)]
    data = b"".join(lines)
    first = shipping.raw_events(data[: len(lines[0]) + 9], 0).json()["acked"]
    assert first == len(lines[0])
    assert shipping.raw_events(data, 0).json()["acked"] == len(data)
    assert shipping.raw_events(data, 0).json()["acked"] == len(data)
    events = shipping.get(f"/runs/{shipping.run_id}/events")["items"]
    assert [(event["seq"], event["step"]) for event in events] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1, 2]",
        b'{"kind": "magic"}',
        b'{"kind": "metric", "values": {"a": 1}}',
        b'{"kind": "metric", "step": 9223372036854775808, "values": {"a": 1}}',
        b'{"kind": "metric", "step": true, "values": {"a": 1}}',
        b"\xff\xfe\x00",
        b'{"kind": "warning", "message": "nul \\u0000 inside"}',
        b'{"kind": "checkpoint", "step": 1, "path": 5}',
        b'{"kind": "eval", "values": "many"}',
        b'{"kind": "end", "peak_bytes": 1e300}',
        b'{"kind": "metric", "step": 1, "values": {"a": NaN}}',
        b'{"kind": "checkpoint", "step": 1, "path": "a", "sha256": "b", "bytes": 9223372036854775808}',
        b'{"kind": "checkpoint", "step": 1, "path": "a", "sha256": "b", "bytes": true}',
        b'{"kind": "phase", "phase": "train", "step": 0, "steps": true}',
        b'{"kind": "end", "peak_bytes": true}',
        b'{"kind": "eval", "step": 1, "name": "e", "counts": {"a": 1e300}}',
        b'{"kind": "warning", "t": -1e308, "message": "long ago"}',
        b'{"kind": "phase", "a": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"kind": "sample", "prompt": "<script>alert(1)</script>", "text": "\\u001b[31m"}',
    ],
)
def test_a_broken_line_breaks_nothing_and_what_follows_is_stored(shipping: Shipping, line: bytes) -> None:
    good = json.dumps({"t": 1.0, **metric(7, train__loss=1.5)}).encode()
    data = line + b"\n" + good + b"\n"
    assert shipping.raw_events(data, 0).json() == {"acked": len(data)}
    assert shipping.run()["summary"]["train/loss"] == 1.5
    events = shipping.get(f"/runs/{shipping.run_id}/events")["items"]
    assert len(events) == 2


def test_lines_in_a_row_that_are_no_events_are_one_warning(shipping: Shipping) -> None:
    good = json.dumps({"t": 1.0, **metric(7, train__loss=1.5)}).encode() + b"\n"
    data = b"0\n" * 100_000 + good + b"[]\n"
    assert shipping.raw_events(data, 0).json() == {"acked": len(data)}
    first, _, last = shipping.get(f"/runs/{shipping.run_id}/events")["items"]
    assert first["data"]["message"] == "a line that is no event was dropped: '0'; and 99999 more after it"
    assert last["data"]["message"] == "a line that is no event was dropped: '[]'"


def test_evaluations_do_not_grow_a_summary_without_end(
    shipping: Shipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_SUMMARY", 4)
    for step in range(3):
        values = {f"{step}{place}": 1.0 for place in range(3)}
        shipping.events({"kind": "eval", "step": step, "name": "e", "values": values})
    shipping.events({"kind": "eval", "step": 3, "name": "e", "values": {"00": 2.0}})
    summary = shipping.run()["summary"]
    assert len(summary) == 4 and summary["e/00"] == 2.0


def test_an_oversized_line_is_a_warning(shipping: Shipping) -> None:
    data = b"x" * 300_000
    assert shipping.raw_events(data, 0).json() == {"acked": len(data)}
    assert shipping.raw_events(b"y" * 2_000_000, len(data)).status_code == 413
    (event,) = shipping.get(f"/runs/{shipping.run_id}/events")["items"]
    assert event["kind"] == "warning" and "dropped" in event["data"]["message"]


def test_a_resumed_attempt_takes_back_what_never_happened(service: Service) -> None:
    worker = FakeWorker(service)
    first = begin(service, worker)
    first.events(*[metric(step, train__loss=float(step)) for step in range(1, 11)])
    worker.finish(first.claim, "failed", reason="killed_signal")
    second = Shipping(service, worker, worker.claim())
    assert second.claim["number"] == 2
    second.events(
        {"kind": "phase", "phase": "resume", "step": 4}, *[metric(s, train__loss=0.5) for s in (5, 6)]
    )
    series = second.get(f"/runs/{second.run_id}/metrics", keys="train/loss")["series"][0]
    assert series["x"] == [1, 2, 3, 4, 5, 6]
    assert series["y"] == [1.0, 2.0, 3.0, 4.0, 0.5, 0.5]
    assert second.run()["step"] == 6


def test_an_attempt_that_goes_back_takes_back_its_own_points(shipping: Shipping) -> None:
    shipping.events(
        *[metric(step, train__loss=float(step)) for step in range(1, 7)],
        {"kind": "phase", "phase": "resume", "step": 2},
    )
    series = shipping.get(f"/runs/{shipping.run_id}/metrics", keys="train/loss")["series"][0]
    assert series["x"] == [1, 2]
    shipping.events(metric(3, train__loss=0.5))
    series = shipping.get(f"/runs/{shipping.run_id}/metrics", keys="train/loss")["series"][0]
    assert (series["x"], series["y"]) == ([1, 2, 3], [1.0, 2.0, 0.5])


def test_logs_of_several_attempts_are_one_text(service: Service) -> None:
    worker = FakeWorker(service)
    first = begin(service, worker)
    first.log(b"first\n", 0)
    worker.finish(first.claim, "failed", reason="killed_signal")
    second = Shipping(service, worker, worker.claim())
    second.log(b"second\n", 0)
    text = service.client.get(f"/runs/{second.run_id}/logs", params={"format": "text"}).text
    assert text == "first\nsecond\n"


def test_metric_names_are_limited_and_it_is_said_once(
    shipping: Shipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_KEYS", 3)
    shipping.events(*[metric(step, **{f"k{step}": 1.0}) for step in range(1, 8)])
    shipping.events(metric(9, k1=5.0, k99=1.0))
    keys = [series["key"] for series in shipping.get(f"/runs/{shipping.run_id}/metrics")["series"]]
    assert keys == ["k1", "k2", "k3"]
    events = shipping.get(f"/runs/{shipping.run_id}/events")["items"]
    assert [event["kind"] for event in events].count("warning") == 1


def test_a_flood_of_log_ends_with_a_visible_mark(shipping: Shipping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_LOG_BYTES", 100)
    assert shipping.log(b"a" * 90, 0).json()["acked"] == 90
    assert shipping.log(b"b" * 90, 90).json()["acked"] == 180
    assert shipping.log(b"c" * 90, 180).json()["acked"] == 270
    text = shipping.service.client.get(f"/runs/{shipping.run_id}/logs", params={"format": "text"}).text
    assert text.startswith("a" * 90 + "b" * 10 + "\n[the log of this run is full") and "c" * 9 not in text


def test_checkpoints_and_evaluations_become_rows(shipping: Shipping) -> None:
    base = shipping.service.settings.base_dir
    place = base / "chatsft_checkpoints" / "r1" / "step_000005"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"weights" * 1000)
    (place / "meta.json").write_text("{}")
    event = {
        "kind": "checkpoint",
        "step": 5,
        "bytes": 7002,
        "sha256": "ab" * 32,
        "metrics": {"train/loss": 2.0},
    }
    path = "chatsft_checkpoints/r1/step_000005"
    shipping.events(
        {**event, "path": path, "model": {"n_layer": 2}}, {**event, "path": path, "model": {"n_layer": 2}}
    )
    (row,) = shipping.get("/checkpoints", run=shipping.run_id)["items"]
    assert (row["step"], row["bytes"], row["metrics"], row["path"]) == (5, 7002, {"train/loss": 2.0}, path)
    assert row["model"].endswith(":tokenizer:5")
    assert shipping.get(f"/runs/{shipping.run_id}/checkpoints")["items"] == [row]
    archive = shipping.service.client.get(f"/checkpoints/{row['id']}/download").content
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {member.name.rpartition("/")[2]: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert found == {file.name: file.read_bytes() for file in place.iterdir()}
    scores = {"kind": "eval", "step": 5, "name": "chat_eval", "values": {"sums": 0.5}, "counts": {"sums": 64}}
    shipping.events(scores, {**scores, "values": {"sums": 0.75}})
    (result,) = shipping.get("/evaluations", run=shipping.run_id, name="chat_eval")["items"]
    assert (result["values"], result["counts"]) == ({"sums": 0.75}, {"sums": 64})
    assert shipping.get("/evaluations", run="r0")["items"] == []
    shipping.events({"kind": "checkpoint", "step": 5, "path": path, "removed": True})
    assert shipping.get("/checkpoints", run=shipping.run_id)["items"] == []


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../..", "link/x"])
def test_a_checkpoint_outside_the_base_directory_is_not_handed_out(shipping: Shipping, path: str) -> None:
    (shipping.service.settings.base_dir / "link").symlink_to("/etc")
    shipping.events({"kind": "checkpoint", "step": 1, "path": path, "bytes": 1, "sha256": "0" * 64})
    (row,) = shipping.get(f"/runs/{shipping.run_id}/checkpoints")["items"]
    assert shipping.service.client.get(f"/checkpoints/{row['id']}/download").status_code == 404


def test_the_log_is_read_by_offset_across_split_characters(shipping: Shipping) -> None:
    text = "naïve 日本 text\n" * 3
    data = text.encode()
    shipping.log(data[:9], 0)
    shipping.log(data[9:], 9)
    read, after = "", 0
    while after < len(data):
        page = shipping.get(f"/runs/{shipping.run_id}/logs", after=after, limit=7)
        read += "".join(item["text"] for item in page["items"])
        assert page["last"] > after
        after = page["last"]
    assert read == text


def test_the_log_is_searched_by_whole_lines(shipping: Shipping) -> None:
    shipping.log(b"one Error here\ntwo\nthree ERROR there\nfour", 0)
    page = shipping.get(f"/runs/{shipping.run_id}/logs", q="error")
    assert [(item["offset"], item["text"]) for item in page["items"]] == [
        (0, "one Error here"),
        (19, "three ERROR there"),
    ]


def test_colours_within_a_word_do_not_hide_it(shipping: Shipping) -> None:
    lines = ["\x1b[1;31mlo\x1b[0mss\x1b[2m\x1b[38;5;9m 3\x1b[m.5", "\x1b]0;loss 3\x07", "lo ss 3", "a (b"]
    shipping.log("\n".join(lines).encode(), 0)
    for word, expected in (("Loss 3.5", [0]), ("loss 3", [0, 1]), ("A (B", [3]), ("3.", [0])):
        page = shipping.get(f"/runs/{shipping.run_id}/logs", q=word)
        assert [lines.index(item["text"]) for item in page["items"]] == expected, word


def test_a_search_finds_the_offset_of_every_line_in_a_log_of_many_chunks(shipping: Shipping) -> None:
    """Also of those that chunks and pieces cut, and of the last one, which has no end."""
    lines = [f"{number} \N{EM DASH} {'x' * (number * 41 % 997)}" for number in range(1500)] + ["tail Needle"]
    for number in (0, 700, 701, 1050, 1499):
        lines[number] += " a NEEDLE"
    data, sent = "\n".join(lines).encode(), 0
    for size in (1, 50, 9_999, 100_000, 500_000, len(data)):
        shipping.log(data[sent : sent + size], sent)
        sent = min(len(data), sent + size)
    url, found, after = f"/runs/{shipping.run_id}/logs", [], 0
    while after < len(data):
        page = shipping.get(url, q="needle", limit=2, after=after)
        found += [(item["offset"], item["text"]) for item in page["items"]]
        after = page["last"]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()) + 1)
    assert found == [(starts[n], line) for n, line in enumerate(lines) if "eedle" in line or "NEEDLE" in line]
    assert shipping.get(url, q="nowhere")["last"] == len(data)
    for start in (starts[700], starts[1050], len(data) - 5):
        text = shipping.get(url, after=start, limit=4000)["items"][0]["text"]
        assert data[start : start + 3900].decode("utf-8", "ignore").startswith(text[:3000])


def test_series_come_by_step_time_or_tokens(shipping: Shipping) -> None:
    shipping.events(
        {**metric(1, train__loss=3.0, train__tokens=100.0), "t": 10.0},
        {**metric(2, train__loss=2.0, train__tokens=200.0), "t": 12.5},
    )
    url = f"/runs/{shipping.run_id}/metrics"
    by = {x: shipping.get(url, keys="train/loss", x=x)["series"] for x in ("step", "time", "tokens")}
    assert {x: found[0]["x"] for x, found in by.items()} == {
        "step": [1, 2],
        "time": [0, 2.5],
        "tokens": [100, 200],
    }
    assert all(len(found) == 1 for found in by.values())


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_of_lines_raise(data: bytes) -> None:
    lines, size = whole_lines(data)
    assert size <= len(data)
    for line in lines:
        parse(line)
