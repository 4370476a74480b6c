"""A real engine process of the test's own: damaged files, a kill in the middle of an answer, its options."""

from __future__ import annotations

import time
from typing import Any

import httpx
import openai
import psutil
import pytest

from server.settings import Settings
from tests.server.inference.conftest import directory
from tests.services import Service, command_line

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ASK: Any = [{"role": "user", "content": "Who are you?"}]


def ask(service: Service, model: str, **fields: Any) -> httpx.Response:
    return service.client.post("/v1/chat/completions", json={"model": model, "messages": ASK, **fields})


def engines(service: Service) -> list[psutil.Process]:
    """Engine processes of this service: their checkpoints lie in its base directory."""
    base = str(service.settings.base_dir)
    children = psutil.Process().children(recursive=True)
    return [
        process
        for process in children
        if "nanochat.engine" in (line := command_line(process))
        and any(part.startswith(base) for part in line)
    ]


def test_a_damaged_checkpoint_is_not_served_and_the_error_says_why(
    service: Service, model: str, settings: Settings
) -> None:
    (directory(settings) / "model.safetensors").write_bytes(b"damaged")
    error = ask(service, model).json()["error"]
    assert error["code"] == "model_load_failed"
    assert "model.safetensors" in error["message"] and "Traceback" not in error["message"]
    directory(settings).rename(settings.base_dir / "elsewhere")
    answer = ask(service, model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_an_engine_killed_while_it_answers_says_so_and_the_next_request_is_served(
    service: Service, model: str
) -> None:
    assert ask(service, model, max_tokens=1).status_code == 200
    (victim,) = engines(service)
    with openai.OpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0) as api:
        stream = api.completions.create(
            model=model, prompt=["a"] * 64, max_tokens=100, stream=True, temperature=0
        )
        with pytest.raises(openai.APIError, match="engine of this model died"):
            for number, _ in enumerate(stream):
                if number == 0:
                    victim.kill()
    began = time.monotonic()
    assert ask(service, model, max_tokens=2, ignore_eos=True).json()["usage"]["completion_tokens"] == 2
    assert time.monotonic() - began < 20  # about 3 s on an idle machine
    assert victim.pid not in [process.pid for process in engines(service)]


class TestOptions:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        changes = {
            "engine_slots": 3, "engine_threads": 1, "engine_dtype": "float32", "engine_quantize": "int8",
            "engine_kv_gib": 0.01,
        }  # fmt: skip
        return settings.model_copy(update=changes)

    def test_settings_reach_the_engine(self, service: Service, model: str) -> None:
        view = service.client.post(f"/models/{model}/load").json()
        assert (view["loaded"], view["device"], view["precision"]) == (True, "cpu", "int8")
        (process,) = engines(service)
        line = " ".join(process.cmdline())
        assert "--slots 3 --threads 1 --dtype float32 --quantize int8 --kv-gib 0.01" in line
        assert (
            ask(service, model, n=5, max_tokens=3, ignore_eos=True).json()["usage"]["completion_tokens"] == 15
        )
