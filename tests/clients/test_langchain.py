"""LangChain's ChatOpenAI against the server: whole, streamed, in batches, asynchronous, with usage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.clients.conftest import Install, Served

VERSION = "1.7.4"
PACKAGES = (
    f"langchain-openai=={VERSION}", "langchain-core==1.8.3", "langchain-protocol==0.0.20",
    "langsmith==0.15.1", "tenacity==9.2.1", "uuid-utils==0.19.0", "zstandard==0.25.0",
    "requests-toolbelt==1.0.0", "jsonpatch==1.48", "jsonpointer==3.12",
)  # fmt: skip
PROGRAM = """
import asyncio, json, sys
from importlib.metadata import version
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

def chat(**more):
    return ChatOpenAI(**{**same, "max_tokens": 12, **more})

same = {"model": sys.argv[2], "base_url": sys.argv[1] + "/v1", "api_key": "unused", "max_retries": 0,
        "temperature": 0}
talk = [SystemMessage("Be brief."), HumanMessage("Who are you?"), AIMessage("A model."), HumanMessage("Why?")]
questions = [f"Question {i}" for i in range(6)]

async def asynchronous():
    whole = await chat().ainvoke(talk)
    parts = [part async for part in chat().astream(talk)]
    batch = await chat().abatch(questions)
    return whole.content, "".join(part.content for part in parts), [one.content for one in batch]

whole = chat().invoke(talk)
parts = list(chat(stream_usage=True).stream(talk))
logprobs = chat(logprobs=True, top_logprobs=2).invoke(talk).response_metadata["logprobs"]["content"]
try:
    chat(model="nope").invoke("hi")
except Exception as error:
    refused = error.code
print(json.dumps({
    "version": version("langchain-openai"),
    "whole": whole.content,
    "reason": whole.response_metadata["finish_reason"],
    "model": whole.response_metadata["model_name"],
    "usage": whole.usage_metadata,
    "parts": [part.content for part in parts],
    "streamed usage": [part.usage_metadata for part in parts if part.usage_metadata],
    "streamed reason": [r for p in parts if (r := p.response_metadata.get("finish_reason"))],
    "alone": [chat().invoke(question).content for question in questions],
    "batch": [one.content for one in chat().batch(questions)],
    "async": asyncio.run(asynchronous()),
    "alternatives": [len(one["top_logprobs"]) for one in logprobs],
    "plain": OpenAI(**same, max_tokens=5).invoke("The class"),
    "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def said(served: Served, install: Install) -> dict[str, Any]:
    """What the program above found."""
    place = install(f"langchain-openai-{VERSION}", *PACKAGES)
    environ = {**os.environ, "PYTHONPATH": str(place), "LANGSMITH_TRACING": "false"}
    command = [sys.executable, "-c", PROGRAM, served.service.base_url, served.model]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["version"] == VERSION
    return found


def test_invoke_has_text_reason_and_usage(served: Served, said: dict[str, Any]) -> None:
    usage = said["usage"]
    assert said["whole"] and said["reason"] in ("length", "stop") and said["model"] == served.model
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert 0 < usage["output_tokens"] <= 12 and usage["input_tokens"] > 20


def test_stream_is_the_same_text_in_parts_with_the_same_usage(said: dict[str, Any]) -> None:
    assert "".join(said["parts"]) == said["whole"] and sum(map(bool, said["parts"])) > 1
    (usage,) = said["streamed usage"]
    assert [usage[k] for k in ("input_tokens", "output_tokens", "total_tokens")] == [
        said["usage"][k] for k in ("input_tokens", "output_tokens", "total_tokens")
    ]
    assert said["streamed reason"] == [said["reason"]]


def test_batch_and_async_say_what_single_calls_say(said: dict[str, Any]) -> None:
    whole, streamed, batch = said["async"]
    assert whole == streamed == said["whole"]
    assert batch == said["batch"] == said["alone"] and len(set(batch)) > 1


def test_logprobs_plain_completions_and_refusals_arrive(said: dict[str, Any]) -> None:
    assert said["alternatives"] == [2] * said["usage"]["output_tokens"]
    assert said["plain"]
    assert said["refused"] == "model_not_found"
