"""Client and AsyncClient keep one contract, against the real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from nanochat_client import ConnectionFailed, Invalid, NotFound
from nanochat_client.errors import BadRequest, Conflict, ServerError, from_answer
from nanochat_client.types import PipelineStep, RunPatch, RunState
from tests.client.conftest import Either, Relay, put_events, put_log
from tests.server.fake_worker import FakeWorker
from tests.services import free_port


def test_a_run_from_its_creation_to_its_deletion(either: Either, worker: FakeWorker) -> None:
    run = either.create_run("tokenizer", overrides={"vocab_size": 512}, name="small one", tags=["a"])
    assert (run.stage, run.name, run.config["vocab_size"]) == ("tokenizer", "small one", 512)
    claim = worker.claim()
    put_log(worker, claim, "reading\nbpe 7 merges\n")
    put_events(
        worker,
        claim,
        {"kind": "phase", "phase": "train", "steps": 2},
        {"kind": "metric", "step": 1, "values": {"train/loss": 3.0}},
        {"kind": "metric", "step": 2, "values": {"train/loss": 2.5}},
        {"kind": "sample", "step": 2, "prompt": "The", "text": " end"},
    )
    assert either.run(run.id).state is RunState.RUNNING
    assert either.logs(run.id).items[0].text == "reading\nbpe 7 merges\n"
    assert [chunk.text.strip() for chunk in either.logs(run.id, q="merges").items] == ["bpe 7 merges"]
    assert either.metrics(run.id, keys=["train/loss"]).series[0].y == [3.0, 2.5]
    assert [event.kind for event in either.events(run.id, kind=["phase", "sample"]).items] == [
        "phase",
        "sample",
    ]
    assert either.samples(run.id).items[0].text == " end"
    worker.finish(claim)
    assert either.run(run.id).state is RunState.SUCCEEDED
    assert either.attempts(run.id).items[0].number == 1
    assert either.patch_run(run.id, RunPatch(notes="good")).notes == "good"
    assert [item.id for item in either.runs(state=["succeeded"], tag="a").items] == [run.id]
    either.delete_run(run.id)
    with pytest.raises(NotFound):
        either.run(run.id)


def test_verbs_move_a_run_and_a_pipeline(either: Either) -> None:
    run = either.create_run("tokenizer")
    assert either.pause_run(run.id).state is RunState.PAUSED
    assert either.resume_run(run.id).state is RunState.QUEUED
    assert either.cancel_run(run.id).state is RunState.CANCELLED
    again = either.retry_run(run.id)
    assert again.retry_of == run.id
    pipeline = either.create_pipeline(name="two", steps=[PipelineStep(name="a", stage="tokenizer")])
    assert [item.id for item in either.pipelines().items] == [pipeline.id]
    assert either.cancel_pipeline(pipeline.id).state is RunState.CANCELLED
    assert either.pipeline(pipeline.id).runs[0].state is RunState.CANCELLED
    assert either.evaluations(pipeline=pipeline.id, limit=5).items == []
    assert either.pipeline_report(pipeline.id).rows == either.report(pipeline.runs[0].id).rows == []


def test_the_service_describes_itself(either: Either, worker: FakeWorker) -> None:
    assert "base" in [stage.name for stage in either.stages().items]
    assert "demo_base" in [config.name for config in either.configs().items]
    assert either.system().workers[0].id == either.workers().items[0].id == worker.id
    assert either.models() == []
    for act in (either.load_model, either.unload_model):
        with pytest.raises(NotFound, match="no/such:model"):
            act("no/such:model")
    with pytest.raises(NotFound, match="c9999999999"):
        either.promote("c9999999999", "demo")
    assert either.checkpoints().items == []


def test_a_plan_is_asked_for_without_starting_anything(either: Either) -> None:
    plan = either.plan("base", config="stable_26gb", gpu="RTX 5090", target_vram_gb=8)
    assert plan.memory is not None and plan.fits is False and plan.gpus == 2
    assert plan.fit is not None and plan.fit.device_batch_size == 2
    wrong = either.plan("base", overrides={"depth": 13}, gpus=0)
    assert wrong.problems[0].nearest == 14
    with pytest.raises(Invalid, match="RTX 5090"):
        either.plan("base", gpu="RTX 5900")
    assert either.runs().items == []


def test_errors_carry_what_the_service_said(either: Either) -> None:
    with pytest.raises(Invalid) as caught:
        either.create_run("base", overrides={"depht": 3})
    error = caught.value
    assert error.status == 422 and error.request_id
    assert (error.errors[0].pointer, error.errors[0].nearest) == ("/overrides/depht", "depth")
    run = either.create_run("tokenizer")
    with pytest.raises(Conflict) as conflict:
        either.resume_run(run.id)
    assert conflict.value.status == 409
    with pytest.raises(NotFound, match="nobody") as missing:
        list(either.chat_stream([{"role": "user", "content": "hi"}], model="nobody"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(NotFound):
        either.run("../stages")


def test_nothing_at_the_address_says_how_to_start_it(connect: Callable[[str], Either]) -> None:
    with pytest.raises(ConnectionFailed, match="nanochat up"):
        connect(f"http://127.0.0.1:{free_port()}").runs()
    with pytest.raises(ConnectionFailed, match="no address"):
        connect("localhost:8000")


def test_reading_and_creating_survive_a_broken_connection_once_each(
    connect: Callable[[str], Either], relay: Relay
) -> None:
    client = connect(relay.url)
    relay.refuse = 2
    assert client.runs().items == []
    run = client.create_run("tokenizer")
    relay.cut()
    relay.refuse = 1
    client.create_run("tokenizer", name="second")
    assert [item.name for item in client.runs().items] == ["second", run.name]


def test_reading_and_creating_are_repeated_when_a_proxy_finds_no_service(
    connect: Callable[[str], Either], relay: Relay
) -> None:
    client = connect(relay.url)
    relay.fail = 2
    run = client.create_run("tokenizer")
    assert [item.id for item in client.runs().items] == [run.id]
    relay.cut()
    relay.fail = 3
    with pytest.raises(ServerError, match="502"):
        client.runs()
    relay.fail, before = 1, relay.accepted
    with pytest.raises(ServerError, match="502"):
        client.cancel_run(run.id)
    assert relay.accepted - before == 1, "an action is not repeated"


def test_an_action_is_not_repeated_after_a_broken_connection(
    connect: Callable[[str], Either], relay: Relay
) -> None:
    client = connect(relay.url)
    run = client.create_run("tokenizer")
    relay.cut()
    relay.refuse = 1
    before = relay.accepted
    with pytest.raises(ConnectionFailed):
        client.cancel_run(run.id)
        client.cancel_run(run.id)
    assert relay.accepted - before == 1


def test_any_answer_becomes_an_error_of_the_tree() -> None:
    assert isinstance(from_answer(502, b"<html>bad gateway", None), ServerError)
    openai = from_answer(400, b'{"error": {"message": "too long", "param": "messages", "code": "c"}}', "r1")
    assert isinstance(openai, BadRequest)
    assert (openai.detail, openai.code, openai.request_id) == ("too long", "c", "r1")
    assert openai.errors[0].pointer == "/messages"


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        ("import nanochat_client", ("torch", "numpy", "rich", "httpx", "pydantic")),
        (
            "from nanochat_client import Client, AsyncClient, NotFound",
            ("torch", "numpy", "typer", "fastapi", "httpx", "websockets", "openai", "pandas"),
        ),
    ],
)
def test_importing_the_sdk_loads_nothing_heavy(line: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys; {line}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_sdk_brings_only_what_it_needs() -> None:
    """0.17 to 0.19 s of CPU time on an idle machine (200 ms are promised); a module would break that."""
    code = (
        "import resource, sys; used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2]); "
        "before = used(); from nanochat_client import AsyncClient, Client; print(used() - before); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(5)
    ]
    heavy = {"torch", "numpy", "pandas", "openai", "httpx", "server", "nanochat", "typer", "rich"}
    assert heavy.isdisjoint(done[0].splitlines()[1].split())
    taken = [float(text.splitlines()[0]) for text in done]
    assert min(taken) < 0.4, f"seconds: {taken}"  # two busy cores take twice as long for the same
