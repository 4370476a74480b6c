"""A checkpoint is exported in the browser, by the real exporter, and its files are fetched."""

from __future__ import annotations

import tarfile
from typing import Any

from nanochat.checkpoint import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer
from tests.services import Service
from tests.web import seed
from tests.web.test_pages import expect


def test_a_checkpoint_is_exported_and_downloaded(service: Service, host: seed.Host, visit: Any) -> None:
    body = {"stage": "tokenizer", "name": "exported"}
    trainer = seed.Trainer(host, service.client.post("/runs", json=body).json()["id"])
    place = service.settings.base_dir / "base_checkpoints" / trainer.run_id / "step_000007"
    tokenizer = Tokenizer.train(iter(["the cat sat on the mat"] * 20), 300)
    net = GPT(GPTConfig(64, tokenizer.vocab_size, 1, 1, 1, 32))
    net.init_weights()
    save_checkpoint(place, net, tokenizer, {"stage": "base", "step": 7})
    trainer.checkpoint(7, "base")
    visitor = visit()
    page = visitor.open(f"/runs/{trainer.run_id}")
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_role("button", name="Export as float32").click()
    link = page.get_by_role("link", name="Download (")
    expect(link).to_be_visible(timeout=120_000)
    with page.expect_download() as fetched:
        link.click()
    with tarfile.open(fetched.value.path()) as archive:
        assert "model.safetensors" in {name.rpartition("/")[2] for name in archive.getnames()}
    (place / "model.safetensors").unlink()
    page.get_by_role("button", name="Export as bfloat16").click()
    expect(page.get_by_text("missing or damaged")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert visitor.faults == []
