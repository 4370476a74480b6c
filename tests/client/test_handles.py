"""A run in a program's hands: its own methods, tables of its metrics, OpenAI's client."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest

from nanochat_client import RunFailed
from nanochat_client.stream import End
from nanochat_client.types import Metrics, PipelineStep, RunPatch, RunState, Series
from tests.client.conftest import Either, put_events
from tests.server.fake_worker import FakeWorker
from tests.services import Service


def own(either: Either, result: Any) -> Any:
    """What a method of a run returned, awaited where that is needed."""
    return either._run(result) if hasattr(result, "__await__") else result


def made(either: Either, **arguments: Any) -> Any:
    return own(either, either._client.runs.create("tokenizer", **arguments))


def test_a_run_knows_its_verbs(either: Either) -> None:
    run = made(either, name="mine")
    assert own(either, run.pause()).state is RunState.PAUSED
    assert own(either, run.refresh()).state is RunState.PAUSED
    assert own(either, run.resume()).state is RunState.QUEUED
    assert own(either, run.patch(RunPatch(notes="n"))).notes == "n"
    again = own(either, own(either, run.cancel()).retry())
    assert again.retry_of == run.id
    assert [item.id for item in own(either, either._client.runs()).items] == [again.id, run.id]
    assert own(either, own(either, either._client.runs.get(run.id)).attempts()).items == []
    assert own(either, run.delete()) is None


def test_waiting_returns_the_run_that_has_ended(either: Either, worker: FakeWorker) -> None:
    run = made(either)
    claim = worker.claim()
    put_events(worker, claim, {"kind": "metric", "step": 1, "values": {"train/loss": 3.0}})
    worker.finish(claim)
    assert own(either, run.wait()).state is RunState.SUCCEEDED
    assert own(either, run.metrics(["train/loss"])).series[0].y == [3.0]
    items = run.follow()
    assert isinstance(list(either._iterate(items) if hasattr(items, "__aiter__") else items)[-1], End)


def test_waiting_for_a_run_that_fails_raises_its_reason(either: Either, worker: FakeWorker) -> None:
    run = made(either, max_restarts=0)
    worker.finish(worker.claim(), "failed", reason="data_error", message="no text in base_data")
    with pytest.raises(RunFailed, match="no text in base_data") as failed:
        own(either, run.wait())
    assert failed.value.code == "data_error"
    assert own(either, run.wait(check=False)).state is RunState.FAILED


def test_a_run_of_a_pipeline_has_its_verbs_too(either: Either) -> None:
    pipeline = either.create_pipeline(name="one", steps=[PipelineStep(name="a", stage="tokenizer")])
    assert own(either, pipeline.runs[0].cancel()).state is RunState.CANCELLED


def test_a_change_under_an_old_version_is_refused(either: Either) -> None:
    from nanochat_client.errors import Conflict

    run = made(either)
    assert own(either, run.patch(RunPatch(notes="first"), version=run.version)).notes == "first"
    with pytest.raises(Conflict):
        own(either, run.patch(RunPatch(notes="second"), version=run.version))


SERIES = [Series(key="a", x=[1, 2, 3], y=[3.0, None, 1.0]), Series(key="b", x=[2], y=[9.0])]
METRICS = Metrics(x="step", last=3, series=SERIES)


def test_metrics_are_a_table_with_a_column_for_each_key() -> None:
    pytest.importorskip("pandas")
    table = METRICS.to_pandas()
    assert list(table.columns) == ["a", "b"] and table.index.name == "step"
    assert list(table.index) == [1, 2, 3] and table.loc[2, "b"] == 9.0
    assert math.isnan(table.loc[2, "a"]) and math.isnan(table.loc[1, "b"])
    assert Metrics(x="step", last=0, series=[]).to_pandas().empty


def test_without_pandas_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install pandas"):
        METRICS.to_pandas()


def test_openai_s_client_speaks_to_this_service(either: Either, service: Service) -> None:
    official = either.openai()
    assert str(official.base_url) == f"{service.base_url}/v1/"
    listed = official.models.list()

    async def all_of() -> list[str]:
        return [model.id async for model in listed]

    assert (either._run(all_of()) if either._runner else list(listed)) == []
