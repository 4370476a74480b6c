"""Uploaded files in runs: named by their path, kept while they are needed; presets by their name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.server.fake_worker import post_run
from tests.server.files.uploads import GOOD, announce, announced, send, upload
from tests.services import Service

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
TEXT = b"Some text to train on.\n"


def run_body(**overrides: Any) -> dict[str, Any]:
    return {"stage": "tokenizer", "overrides": {"vocab_size": 300, **overrides}}


@sqlite_only
def test_a_file_that_is_not_there_is_said_at_once_with_the_nearest(service: Service) -> None:
    upload(service.client, TEXT, "prose.txt", "text")
    answer = service.client.post("/runs", json=run_body(data="files/text/prosa.txt"))
    assert answer.status_code == 422 and answer.json()["code"] == "missing_file"
    (item,) = answer.json()["errors"]
    assert (item["pointer"], item["nearest"]) == ("/overrides/data", "files/text/prose.txt")
    unfinished = announced(service.client, TEXT * 2, "more.txt", "text")
    answer = service.client.post("/runs", json=run_body(data="files/text/more.txt"))
    assert answer.status_code == 422 and "it is uploading" in answer.json()["detail"]
    send(service.client, unfinished, TEXT * 2, 0)
    for data in (
        "files/text/more.txt",
        "files/text",
        str(service.settings.base_dir / "files/text/prose.txt"),
    ):
        assert service.client.post("/runs", json=run_body(data=data)).status_code == 201, data
    by_hand = service.settings.base_dir / "files" / "text" / "by-hand.txt"
    by_hand.write_bytes(TEXT)
    assert service.client.post("/runs", json=run_body(data="files/text/by-hand.txt")).status_code == 201


@sqlite_only
def test_a_pipeline_points_to_where_the_missing_file_was_named(service: Service) -> None:
    wrong = "sums,files/conversations/none.jsonl*2"
    steps = [{"name": "t", "stage": "tokenizer", "overrides": {"data": "files/text/none.txt"}}]
    answer = service.client.post("/pipelines", json={"steps": steps})
    assert [item["pointer"] for item in answer.json()["errors"]] == ["/steps/0/overrides/data"]
    answer = service.client.post(
        "/pipelines", json={"preset": "demo", "overrides": {"sft": {"tasks": wrong}}}
    )
    assert answer.status_code == 422
    assert [item["pointer"] for item in answer.json()["errors"]] == ["/overrides/sft/tasks"]


def test_a_file_that_a_run_needs_stays_until_the_run_is_over(service: Service) -> None:
    text = upload(service.client, TEXT, "prose.txt", "text")
    talk = upload(service.client, GOOD, "support.jsonl")
    first = post_run(service, overrides={"data": "files/text"})
    second = post_run(service, stage="sft", overrides={"tasks": f"sums,{talk['path']}*3"})
    for file, run in ((text, first), (talk, second)):
        refused = service.client.delete(f"/files/{file['id']}")
        assert refused.status_code == 409 and refused.json()["code"] == "in_use"
        assert run["id"] in refused.json()["detail"]
        assert (service.settings.base_dir / file["path"]).exists()
        service.client.post(f"/runs/{run['id']}/cancel").raise_for_status()
        assert service.client.delete(f"/files/{file['id']}").status_code == 204


def test_of_a_run_that_names_a_file_and_its_deletion_one_is_refused(service: Service) -> None:
    for number in range(8):
        file = upload(service.client, TEXT, f"{number}.txt", "text")
        with (
            httpx.Client(base_url=service.base_url, timeout=60) as one,
            httpx.Client(base_url=service.base_url, timeout=60) as other,
            ThreadPoolExecutor(2) as pool,
        ):
            made = pool.submit(one.post, "/runs", json=run_body(data=file["path"]))
            gone = pool.submit(other.delete, f"/files/{file['id']}")
            found = (made.result().status_code, gone.result().status_code)
        assert found in ((201, 409), (422, 204)), found
        assert (service.settings.base_dir / file["path"]).exists() == (found[0] == 201)


def test_an_uploaded_preset_is_a_preset(service: Service) -> None:
    source = b'"""Mine."""\ndepth = 2\nmax_seq_len = 2 * 64\ndevice_batch_size = 2\ntotal_batch_size = 256\n'
    file = upload(service.client, source, "mine.py", "preset")
    assert file["state"] == "ready" and file["path"] == "files/preset/mine.py"
    listed = {config["name"]: config for config in service.client.get("/configs").json()["items"]}
    assert listed["mine"]["path"] == "files/preset/mine.py" and listed["mine"]["stages"] == ["base"]
    assert service.client.get("/configs/mine").json()["values"]["max_seq_len"] == 128
    base = service.client.get("/stages/base").json()
    assert "mine" in base["presets"] and "debug_cpu" in base["presets"]
    body = {"stage": "base", "config": "mine", "overrides": {"num_iterations": 3, "device": "cpu"}}
    run = service.client.post("/runs", json=body).json()
    assert run["preset"] == "mine" and (run["config"]["depth"], run["config"]["max_seq_len"]) == (2, 128)
    assert service.client.post("/plans", json=body).json()["preset"] == "mine"
    near = service.client.post("/runs", json={**body, "config": "mime"}).json()["errors"][0]
    assert near["nearest"] == "mine"
    assert service.client.delete(f"/files/{file['id']}").status_code == 204, "the run has its values"
    assert service.client.get("/configs/mine").status_code == 404
    assert service.client.post("/runs", json=body).json()["code"] == "unknown_preset"


def test_a_preset_may_be_json_and_its_name_is_one_name(service: Service) -> None:
    source = b'{"depth": 2, "max_seq_len": 128, "device_batch_size": 2, "total_batch_size": 256}'
    file = upload(service.client, source, "mine.json", "preset")
    assert (file["state"], file["path"]) == ("ready", "files/preset/mine.json")
    body = {"stage": "base", "config": "mine", "overrides": {"num_iterations": 3, "device": "cpu"}}
    run = service.client.post("/runs", json=body).json()
    assert (run["preset"], run["config"]["depth"]) == ("mine", 2)
    assert "mine" in service.client.get("/stages/base").json()["presets"]
    other = announce(service.client, b"depth = 3\n", "mine.py", "preset")
    assert (other.status_code, other.json()["code"]) == (409, "name_taken")
    assert other.json()["errors"][0]["pointer"] == "/name"
    assert "mine.json" in other.json()["detail"]
    service.client.delete(f"/files/{file['id']}")
    assert upload(service.client, b"depth = 3\n", "mine.py", "preset")["state"] == "ready"


@sqlite_only
def test_no_preset_is_executed(service: Service) -> None:
    source = b"depth = __import__('pathlib').Path('owned').write_text('x')\n"
    file = upload(service.client, source, "evil.py", "preset")
    assert file["state"] == "rejected" and file["message"].startswith("evil.py, line 1: only")
    assert "evil" not in {config["name"] for config in service.client.get("/configs").json()["items"]}
