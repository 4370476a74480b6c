"""Other people's clients, installed apart from our packages, and a service that they talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pydantic import SecretStr

from nanochat.gpt import GPT, GPTConfig
from server.settings import Settings
from tests.clients import packages
from tests.server.inference.conftest import MODEL_ID, TOKENIZER, make_model
from tests.services import WORKER_TOKEN, Service, copy_sqlite

CONTEXT = 128
Install = Callable[..., Path]


@dataclass
class Served:
    """A running service, and the model it serves as MODEL_ID in float32."""

    service: Service
    net: GPT
    model: str = MODEL_ID


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, valkey_url: str
) -> Iterator[Served]:
    """Random weights that say no special token but `<|bos|>`, an end, and that one more than by chance."""
    net = GPT(GPTConfig(CONTEXT, TOKENIZER.vocab_size, 2, 2, 2, 64))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=0.15, generator=generator)
        head = net.lm_head.weight
        head[TOKENIZER.bos] *= 1.5
        head[TOKENIZER.bos + 1 :] = 0
    directory = tmp_path_factory.mktemp("clients")
    settings = Settings(
        base_dir=directory,
        database_url=copy_sqlite(sqlite_template, directory),
        redis_url=valkey_url,
        worker_token=SecretStr(WORKER_TOKEN),
        engine_dtype="float32",
    )
    with ThreadPoolExecutor(1) as apart:  # playwright's event loop may run in this thread
        apart.submit(make_model, settings, net).result()
    running = Service(settings).start()
    yield Served(running, net.eval())
    running.stop()


@pytest.fixture(scope="session")
def install(request: pytest.FixtureRequest) -> Install:
    """`install(name, *requirements, deps=…)`: a directory for PYTHONPATH, kept between test runs.

    Without `deps` the packages are taken alone, and ours are what they depend on. Skips the test where pip
    gets nothing.
    """

    def into(name: str, *requirements: str, deps: bool = False) -> Path:
        assert request.config.cache is not None
        try:
            return packages.install(request.config.cache.mkdir(name), *requirements, deps=deps)
        except packages.NotInstallable as error:
            pytest.skip(str(error))

    return into
