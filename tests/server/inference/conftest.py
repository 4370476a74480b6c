"""Services that have a model: one tiny real one shared by the whole session, or a stub engine per test."""

from __future__ import annotations

import asyncio
import pydoc_data.topics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import torch
from pydantic import SecretStr

from nanochat.checkpoint import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.paths import step_dir
from nanochat.tokenizer import Tokenizer
from server.db import Database
from server.inference.engines import EngineManager
from server.models import Checkpoint, Run
from server.settings import Settings
from tests.services import WORKER_TOKEN, Service, copy_sqlite

TOKENIZER = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 400)
MODEL_ID = "tiny-run:sft:7"
STUB = (sys.executable, "-m", "tests.server.inference.stub_engine")


@pytest.fixture(scope="session")
def net() -> GPT:
    return random_net()


def random_net() -> GPT:
    """Random weights that never end by themselves; the context is 128 tokens."""
    net = GPT(GPTConfig(128, TOKENIZER.vocab_size, 2, 2, 2, 64))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=0.15, generator=generator)
        net.lm_head.weight[TOKENIZER.specials["<|bos|>"] :] = 0
    return net


@pytest.fixture
def model(settings: Settings, net: GPT) -> str:
    """The id of a model on disk and in the database of `settings`."""
    return make_model(settings, net)


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, valkey_url: str, net: GPT
) -> Iterator[Service]:
    """One running service with one real engine, for tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("served")
    settings = Settings(
        base_dir=directory,
        database_url=copy_sqlite(sqlite_template, directory),
        redis_url=valkey_url,
        worker_token=SecretStr(WORKER_TOKEN),
    )
    make_model(settings, net)
    running = Service(settings).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def api(served: Service) -> Iterator[openai.OpenAI]:
    """The official client of `served`."""
    with openai.OpenAI(base_url=f"{served.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def http(served: Service) -> httpx.Client:
    """A plain client of `served`."""
    return served.client


@pytest.fixture
def stubbed(service: Service) -> Service:
    """A service of the test's own whose engines are stubs; its model is MODEL_ID."""
    stub(service)
    return service


def stub(service: Service) -> None:
    """Its engines are stubs from now on, and it has the model MODEL_ID."""
    place = directory(service.settings)
    place.mkdir(parents=True)
    insert(service.settings, place)
    manager(service).command = STUB


def manager(service: Service) -> EngineManager:
    found: EngineManager = service.app.state.services.engines
    return found


def make_model(settings: Settings, net: GPT) -> str:
    """Save `net` as if a run had trained it; the id it has under /v1/models."""
    place = directory(settings)
    saved = save_checkpoint(place, net, TOKENIZER, {"stage": "sft", "step": 7})
    insert(settings, place, saved.bytes)
    return MODEL_ID


def insert(
    settings: Settings,
    place: Path,
    size: int = 1,
    *,
    run: str = "tiny run",
    stage: str = "sft",
    step: int = 7,
    number: int = 1,
    pipeline: str | None = None,
) -> str:
    """A run and its checkpoint as rows; the checkpoint's id."""

    async def add() -> None:
        db = Database(settings.sqlalchemy_url)
        async with db.write() as session:
            row = Run(id=f"r{number:010d}", stage=stage, name=run, state="succeeded", config={}, gpus=0)
            row.restarts_left = row.max_restarts = 0
            row.pipeline_id = pipeline
            session.add(row)
            await session.flush()
            checkpoint = Checkpoint(
                id=f"c{number:010d}", run_id=row.id, stage=stage, step=step, bytes=size, sha256="0" * 64
            )
            checkpoint.path = str(place.relative_to(settings.base_dir))
            checkpoint.model_config_ = {"sequence_len": 128}
            session.add(checkpoint)
        await db.close()

    # Playwright has a loop in the thread of its tests
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, add()).result()
    return f"c{number:010d}"


def directory(settings: Settings) -> Path:
    return step_dir(settings.base_dir, "sft", "r0000000001", 7)
