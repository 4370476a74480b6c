"""The disk quota: what goes, in which order, and what stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.db import Database
from server.live.hub import Hub
from server.runs.collect import GIB, Collector
from tests.server.fake_worker import FakeWorker, post_run, store_checkpoint
from tests.services import Service

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
KIB = 1024


def ended(service: Service, worker: FakeWorker, outcome: str = "succeeded", **body: object) -> str:
    """A run that has ended and left 10 KiB of log and 90 KiB of tokenizer."""
    run_id = str(post_run(service, max_restarts=0, **body)["id"])
    worker.finish(worker.claim(), outcome, **({"reason": "internal"} if outcome == "failed" else {}))
    base = service.settings.base_dir
    for place, size in ((base / "runs" / run_id / "attempt_1", 10), (base / "tokenizer" / run_id, 90)):
        place.mkdir(parents=True)
        (place / "file").write_bytes(b"x" * size * KIB)
    return run_id


def left(service: Service) -> set[str]:
    return {run["id"] for run in service.client.get("/runs").json()["items"]}


def on_disk(base: Path) -> set[str]:
    return {place.name for place in (base / "tokenizer").iterdir()}


async def look(service: Service, quota_kib: int) -> list[str]:
    db = Database(service.settings.sqlalchemy_url)
    try:
        return await Collector(service.settings.base_dir, quota_kib * KIB / GIB, db, Hub()).look()
    finally:
        await db.close()


async def test_failed_runs_go_before_old_successes_and_only_as_many_as_needed(service: Service) -> None:
    worker = FakeWorker(service)
    old = ended(service, worker)
    failed = ended(service, worker, "failed")
    newer, newest = ended(service, worker), ended(service, worker)
    assert await look(service, 500) == []
    assert await look(service, 390) == [failed]
    assert left(service) == on_disk(service.settings.base_dir) == {old, newer, newest}
    assert await look(service, 250) == [old]
    assert await look(service, 50) == [newer]  # the newest success of a stage stays, quota or not
    assert left(service) == on_disk(service.settings.base_dir) == {newest}


@sqlite_only
async def test_old_exports_go_before_any_run(service: Service) -> None:
    worker = FakeWorker(service)
    failed, newest = ended(service, worker, "failed"), ended(service, worker)
    exports = service.settings.base_dir / "exports"
    for number, name in enumerate(("older", "old", "fresh")):
        place = exports / name
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"x" * 100 * KIB)
        if name != "fresh":
            for changed in (place / "model.safetensors", place):
                os.utime(changed, (number, number))
    (exports / "link").symlink_to(service.settings.base_dir / "runs")
    assert await look(service, 600) == []
    assert await look(service, 450) == [] and {p.name for p in exports.iterdir()} == {"old", "fresh", "link"}
    assert await look(service, 300) == [failed]
    assert {p.name for p in exports.iterdir()} == {"fresh", "link"} and left(service) == {newest}


@sqlite_only
async def test_what_is_tagged_promoted_or_needed_by_a_run_stays(service: Service) -> None:
    worker = FakeWorker(service)
    tagged = ended(service, worker, "failed", tags=["keep"])
    promoted, parent = ended(service, worker), ended(service, worker)
    newest = ended(service, worker)
    await store_checkpoint(service, promoted, "tokenizer", f"tokenizer/{promoted}", model=True)
    checkpoint = service.client.get(f"/runs/{promoted}/checkpoints").json()["items"][0]["id"]
    assert service.client.post(f"/checkpoints/{checkpoint}/promote", json={"alias": "best"}).is_success
    child = post_run(service, stage="base", config="debug_cpu", parent=parent)["id"]
    assert await look(service, 1) == []
    assert left(service) == {tagged, promoted, parent, newest, child}
