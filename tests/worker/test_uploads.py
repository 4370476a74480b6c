"""Runs that learn from what was uploaded: real service, real worker, real trainers."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanochat_client import Client, Conflict
from tests.services import Service, eventually
from tests.worker.conftest import StartWorker
from tests.worker.test_worker import TINY, ended, post, run

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(300),
]
PRESET = "".join(f"{key} = {value}\n" for key, value in TINY.items())


def test_uploaded_text_preset_and_conversations_train_a_model(
    service: Service, start_worker: StartWorker, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "Prose.txt").write_text(
        "\n\n".join(f"Document {number} speaks of the number {number}. " * 12 for number in range(200))
    )
    (here / "tiny.py").write_text(f"{PRESET}device = 'cpu'\nnum_iterations = 100_000\n")
    said = '[{{"role": "user", "content": "{0}?"}}, {{"role": "assistant", "content": "{0}!"}}]\n'
    (here / "talk.jsonl").write_text("".join(said.format(number) for number in range(64)))
    start_worker()
    with Client(service.base_url) as client:
        text, preset, conversations = (
            client.files.upload(here / name) for name in ("Prose.txt", "tiny.py", "talk.jsonl")
        )
        assert (text.path, preset.name) == ("files/text/prose.txt", "tiny.py")
        tokenizer = post(service, stage="tokenizer", overrides={"data": text.path, "vocab_size": 300})
        final = ended(service, tokenizer)
        assert final["state"] == "succeeded", final
        log = service.client.get(f"/runs/{tokenizer}/logs", params={"format": "text"}).text
        assert "corpus" in log and "files/text/prose.txt" in log and "300 tokens" in log

        base = post(service, stage="base", config="tiny", parent=tokenizer, overrides={"data": text.path})
        eventually(lambda: (run(service, base)["step"] or 0) >= 2, 90)
        with pytest.raises(Conflict, match=base):
            client.files.delete(text.id)
        service.client.post(f"/runs/{base}/pause").raise_for_status()
        assert ended(service, base)["state"] == "paused"
        with pytest.raises(Conflict, match="paused"):
            client.files.delete(text.id)  # it will go on from there
        checkpoint = service.client.get(f"/runs/{base}/checkpoints").json()["items"][-1]
        service.client.post(f"/runs/{base}/cancel").raise_for_status()
        client.files.delete(text.id)

        overrides = {
            "mid_checkpoint": checkpoint["id"], "tasks": f"{conversations.path}*2", "num_iterations": 2,
            "device_batch_size": 2, "target_examples_per_step": 4, "eval_every": 0,
        }  # fmt: skip
        sft = ended(service, post(service, stage="sft", gpus=0, overrides=overrides))
        assert (sft["state"], sft["step"]) == ("succeeded", 2), sft
        log = service.client.get(f"/runs/{sft['id']}/logs", params={"format": "text"}).text
        assert f"mixture: {conversations.path} 128" in log
