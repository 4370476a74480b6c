"""The last 1.x of the `openai` package, which many programs still pin, drives the same endpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import Service

OLD = "openai==1.109.1"
PROGRAM = """
import json, sys
import openai

api = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="unused", max_retries=0)
ask = {"model": "latest", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 8, "seed": 3}
whole = api.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
stream = list(api.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
plain = api.completions.create(model="latest", prompt=["a", "b"], max_tokens=3, echo=True, logprobs=1)
try:
    api.chat.completions.create(**{**ask, "model": "nope"})
except openai.NotFoundError as error:
    code = error.code
print(json.dumps({
    "version": openai.__version__,
    "models": [model.id for model in api.models.list()],
    "retrieved": api.models.retrieve("tiny-run:sft:7").id,
    "whole": whole.choices[0].message.content,
    "logprobs": len(whole.choices[0].logprobs.content),
    "streamed": "".join(c.choices[0].delta.content or "" for c in stream if c.choices),
    "usage": stream[-1].usage.completion_tokens,
    "texts": [choice.text[0] for choice in plain.choices],
    "scores": [len(choice.logprobs.token_logprobs) for choice in plain.choices],
    "code": code,
}))
"""


@pytest.fixture(scope="session")
def old_openai(request: pytest.FixtureRequest) -> Path:
    """A directory with the old package alone, kept between test runs; its dependencies are ours."""
    assert request.config.cache is not None
    target = request.config.cache.mkdir(OLD.replace("==", "-"))
    if not (target / "openai" / "__init__.py").exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(target),
            OLD,
        ]
        got = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if got.returncode:
            pytest.skip(f"{OLD} cannot be installed here: {got.stderr.strip().splitlines()[-1][:200]}")
    return target


def test_the_old_client_drives_every_endpoint(served: Service, old_openai: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(old_openai)}
    command = [sys.executable, "-c", PROGRAM, served.base_url]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["version"] == OLD.partition("==")[2]
    assert got["models"] == ["latest", "tiny-run:sft:7"] and got["retrieved"] == "tiny-run:sft:7"
    assert got["whole"] == got["streamed"] and got["usage"] == got["logprobs"] == 8
    assert got["texts"] == ["a", "b"] and got["scores"] == [4, 4]
    assert got["code"] == "model_not_found"
