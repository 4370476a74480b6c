"""The pages that `make docs` writes say everything the code knows."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from nanochat.stages import STAGES
from server import reference


def test_every_setting_of_every_stage_and_every_route_is_on_a_page(tmp_path: Path) -> None:
    assert reference.main([str(tmp_path)]) == 0
    stages = (tmp_path / "stages.md").read_text()
    for stage in STAGES.values():
        assert f"## {stage.name}:" in stages
        assert all(f"| `{name}` |" in stages for name in stage.config.model_fields)
    http = (tmp_path / "http.md").read_text()
    assert "| `POST /runs` |" in http and "| `POST /v1/chat/completions` |" in http
    environment = (tmp_path / "environment.md").read_text()
    assert "| `NANOCHAT_PORT` | `8000` | ≥ 1, ≤ 65535 |" in environment
    assert "Usage: nanochat pipeline" in (tmp_path / "command-line.md").read_text()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_routes_of_the_page_are_those_of_the_service(client: httpx.Client) -> None:
    page = reference.http()
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"| `{method.upper()} {path}` |" in page
