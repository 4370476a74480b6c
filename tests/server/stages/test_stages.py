"""The stage table and the presets over HTTP."""

from __future__ import annotations

import pytest

from nanochat.stages import STAGES
from tests.services import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_every_stage_has_a_schema_that_describes_every_field(service: Service) -> None:
    items = service.client.get("/stages").json()["items"]
    assert [item["name"] for item in items] == list(STAGES)
    for item in items:
        schema = item["config_schema"]
        assert schema["additionalProperties"] is False
        assert all(field.get("description") for field in schema["properties"].values()), item["name"]
        assert service.client.get(f"/stages/{item['name']}").json() == item
    base = next(item for item in items if item["name"] == "base")
    assert {"debug_cpu", "stable_26gb"} <= set(base["presets"])
    assert base["inputs"][0] == {"field": "tokenizer", "stages": ["tokenizer"], "required": True}


def test_every_shipped_preset_resolves_without_problems(service: Service) -> None:
    items = service.client.get("/configs").json()["items"]
    assert {"debug_cpu", "stable_26gb", "config_dual_gpu"} <= {item["name"] for item in items}
    for item in items:
        assert item["problems"] == [] and item["resolved"] and item["stages"], item["name"]
    one = service.client.get("/configs/stable_26gb").json()
    assert one["gpus"] == 2 and one["values"]["depth"] == 14 and one["resolved"]["max_seq_len"] == 3072
