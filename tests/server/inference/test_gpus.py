"""GPUs shared with training runs: where an engine goes, and when it has to leave."""

from __future__ import annotations

import asyncio
import platform

import pytest

from server.db import Database
from server.inference.errors import OpenAIError
from server.inference.gpus import Gpus, Place, Policy, gpus_here, place
from server.models import Attempt, Run, Worker
from server.settings import Settings
from tests.server.fake_worker import FakeWorker, post_run
from tests.server.inference.conftest import MODEL_ID, manager
from tests.services import Service, eventually


def gpus(known: list[int], held: list[int]) -> Gpus:
    return Gpus(frozenset(known), frozenset(held))


@pytest.mark.parametrize("policy", ["cpu", "refuse", "evict"])
def test_a_gpu_that_no_run_holds_is_taken_from_the_end(policy: Policy) -> None:
    assert place(gpus([], []), policy) == Place()
    assert place(gpus([0, 1, 2], [0]), policy) == Place(gpu=2)
    assert place(gpus([0, 1, 2], [0]), policy, taken=[2]) == Place(gpu=1)
    assert place(gpus([0], []), policy, taken=[0]) == Place(gpu=0)  # two engines may share one
    assert Place(gpu=2).env["CUDA_VISIBLE_DEVICES"] == "2" and Place().env == {}


def test_when_runs_hold_them_all_the_policy_decides() -> None:
    held = gpus([0, 1], [0, 1])
    assert place(held, "cpu") == Place(device="cpu")
    for policy in ("refuse", "evict"):
        with pytest.raises(OpenAIError) as caught:
            place(held, policy)  # type: ignore[arg-type]
        assert (caught.value.status, caught.value.code) == (503, "gpu_busy")
        assert caught.value.headers["retry-after"] == "60"


def test_an_engine_is_in_the_way_of_a_run_that_may_use_its_gpu() -> None:
    assert Place(gpu=1).on([0, 1]) and not Place(gpu=2).on([0, 1])
    assert Place().on([0])  # it may be on any
    assert not Place(device="cpu").on([0])


def claim(settings: Settings, host: str) -> None:
    """A run holds GPU 0 of a worker on `host`, which has two."""

    async def add() -> None:
        db = Database(settings.sqlalchemy_url)
        async with db.write() as session:
            cards = [{"index": index, "name": "X", "memory_bytes": 1} for index in (0, 1)]
            session.add(Worker(id="w1", host_id=host, host=host, name=host, slots=2, gpus=cards))
            run = Run(id="r9", stage="base", name="busy", state="running", config={}, gpus=1, restarts_left=0)
            session.add(run)
            await session.flush()
            session.add(Attempt(id="a9", run_id="r9", number=1, state="running", worker_id="w1", gpus=[0]))
        await db.close()

    asyncio.run(add())


def test_what_runs_hold_on_this_host_is_known(settings: Settings) -> None:
    async def look() -> Gpus:
        db = Database(settings.sqlalchemy_url)
        async with db.read() as session:
            found = await gpus_here(session)
        await db.close()
        return found

    claim(settings, platform.node() or "localhost")
    assert asyncio.run(look()) == gpus([0, 1], [0])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("policy", "stays"), [("cpu", False), ("evict", False), ("refuse", True)])
class TestClaims:
    @pytest.fixture
    def settings(self, settings: Settings, policy: Policy) -> Settings:
        return settings.model_copy(update={"engine_gpu": policy})

    def test_an_engine_leaves_the_gpu_that_a_run_claims(
        self, stubbed: Service, monkeypatch: pytest.MonkeyPatch, policy: Policy, stays: bool
    ) -> None:
        monkeypatch.setattr("server.inference.gpus.platform.node", lambda: "fake")
        monkeypatch.setenv("STUB_DEVICE", "cuda")
        worker = FakeWorker(stubbed, gpus=1)
        view = stubbed.client.post(f"/models/{MODEL_ID}/load").json()
        assert view["device"] == "cuda"
        post_run(stubbed, stage="base", overrides={"tokenizer": "t"}, gpus=1)
        held = worker.claim()
        assert held["gpus"] == [0]
        if not stays:
            eventually(lambda: not manager(stubbed).loaded())
        answer = stubbed.client.post("/tokenize", json={"model": MODEL_ID, "text": "x"})
        assert answer.status_code == (503 if policy == "evict" else 200)
        if policy == "evict":
            worker.finish(held)
            answer = stubbed.client.post("/tokenize", json={"model": MODEL_ID, "text": "x"})
            assert answer.status_code == 200
        options = [loaded.place.device for loaded in manager(stubbed)._engines.values()]
        assert options == ["cpu" if policy == "cpu" else "auto"]
