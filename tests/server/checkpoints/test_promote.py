"""A checkpoint gets a name of its own, and the name can move to another."""

from __future__ import annotations

import pytest

from nanochat.gpt import GPT, GPTConfig
from server.settings import Settings
from tests.server.inference.conftest import MODEL_ID, TOKENIZER, make_model
from tests.services import Service

CHECKPOINT = "c0000000001"


@pytest.fixture
def promoted(settings: Settings, service: Service) -> Service:
    net = GPT(GPTConfig(64, TOKENIZER.vocab_size, 1, 1, 1, 32))
    net.init_weights()
    make_model(settings, net)
    return service


def test_a_promoted_checkpoint_is_listed_and_found_under_its_name(promoted: Service) -> None:
    answer = promoted.client.post(f"/checkpoints/{CHECKPOINT}/promote", json={"alias": "demo"})
    assert answer.status_code == 200 and answer.json()["model"] == MODEL_ID
    names = [model["id"] for model in promoted.client.get("/v1/models").json()["data"]]
    assert names[:2] == ["latest", "demo"] and MODEL_ID in names
    assert promoted.client.get("/v1/models/demo").json()["id"] == "demo"
    again = promoted.client.post(f"/checkpoints/{CHECKPOINT}/promote", json={"alias": "demo"})
    assert again.status_code == 200


@pytest.mark.parametrize("alias", ["latest", "", "a b", "a/b", "a:b", "-a", "x" * 65, None, 7])
def test_a_name_that_cannot_be_typed_is_refused(promoted: Service, alias: object) -> None:
    answer = promoted.client.post(f"/checkpoints/{CHECKPOINT}/promote", json={"alias": alias})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/alias"


def test_what_is_not_there_cannot_be_promoted(promoted: Service) -> None:
    answer = promoted.client.post("/checkpoints/c9999999999/promote", json={"alias": "demo"})
    assert answer.status_code == 404
