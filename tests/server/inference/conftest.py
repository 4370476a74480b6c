"""A service with one tiny language model, as if a run had trained it."""

from __future__ import annotations

import asyncio
import pydoc_data.topics
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.paths import step_dir
from nanochat.tokenizer import Tokenizer
from server.db import Database
from server.models import Checkpoint, Run
from server.settings import Settings

TOKENIZER = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 400)
MODEL_ID = "tiny-run:sft:7"


@pytest.fixture
def model(settings: Settings) -> str:
    """The id of a model with random weights; its context is 128 tokens."""
    net = GPT(GPTConfig(128, TOKENIZER.vocab_size, 2, 2, 2, 64))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=0.15, generator=generator)
        net.lm_head.weight[TOKENIZER.specials["<|bos|>"] :] = 0  # never ends by itself
    place = step_dir(settings.base_dir, "sft", "r0000000001", 7)
    saved = save_checkpoint(place, net, TOKENIZER, {"stage": "sft", "step": 7})
    asyncio.run(_insert(settings, str(place.relative_to(settings.base_dir)), saved.bytes, net))
    return MODEL_ID


async def _insert(settings: Settings, path: str, size: int, net: GPT) -> None:
    db = Database(settings.sqlalchemy_url)
    async with db.write() as session:
        run = Run(id="r0000000001", stage="sft", name="tiny run", state="succeeded", config={}, gpus=0)
        run.restarts_left = run.max_restarts = 0
        session.add(run)
        await session.flush()
        row = Checkpoint(
            id="c0000000001", run_id=run.id, stage="sft", step=7, path=path, bytes=size, sha256="0" * 64
        )
        row.model_config_ = net.cfg.to_dict()
        session.add(row)
    await db.close()


def directory(settings: Settings) -> Path:
    return step_dir(settings.base_dir, "sft", "r0000000001", 7)
