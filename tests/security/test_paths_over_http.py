"""No user string is ever a path: hostile ids and names on every route that takes one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from server.policy import ANYBODY, POLICY, WORKER
from tests.services import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PLANTED = "planted-text-that-nobody-may-read"
CORPUS = (
    "../planted.txt",
    "..%2fplanted.txt",
    "%2e%2e%2fplanted.txt",
    "%252e%252e%252fplanted.txt",
    "..;/planted.txt",
    "....//planted.txt",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "planted.txt%00",
    "..%5cplanted.txt",
    "~root",
    "%00",
    "link",
    "a" * 5000,
    "file:%2f%2f%2fetc%2fpasswd",
    "%c0%ae%c0%ae%2fplanted.txt",
    "CON",
    ".",
    "..",
)


def test_hostile_ids_find_nothing_and_break_nothing(service: Service, tmp_path: Path) -> None:
    (tmp_path / "planted.txt").write_text(PLANTED)
    (tmp_path / "link").symlink_to("/etc/passwd")
    with httpx.Client(base_url=service.base_url, timeout=30) as client:
        for row, scopes in POLICY.items():
            method, _, template = row.partition(" ")
            if "{" not in template or method == "WS":
                continue
            client.headers.update(service.internal.headers if scopes == WORKER else {})
            for hostile in CORPUS:
                path = re.sub(r"\{[^}]*\}", lambda _, text=hostile: text, template)
                answer = client.request(method, path, json={} if method in ("POST", "PATCH") else None)
                assert answer.status_code < 500, (row, hostile, answer.text)
                assert PLANTED not in answer.text and "root:x:0" not in answer.text, (row, hostile)
                if scopes != ANYBODY and answer.status_code == 200:  # dots were resolved: another route
                    assert answer.url.path.strip("/") != template.strip("/")
    assert (tmp_path / "planted.txt").read_text() == PLANTED


FIELDS = (
    "../../etc/passwd",
    "/etc/passwd",
    "..\\x",
    "a\0b",
    "a\ud800b",
    "%2e%2e/x",
    "$(touch x)",
    "`id`",
    "a;b",
)


@pytest.mark.parametrize("field", ["config", "name", "parent", "checkpoint"])
def test_hostile_fields_of_a_run_are_refused_or_kept_as_text(
    service: Service, field: str, tmp_path: Path
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    for hostile in FIELDS:
        run = {"stage": "base", field: hostile}
        step = {"name": "a", **run}
        for path, said in (("/runs", run), ("/pipelines", {"steps": [step]})):
            answer = sent(service, path, said)
            assert answer.status_code in (404, 422), (path, field, hostile, answer.text)
            assert "root:x:0" not in answer.text
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("stage", ["base", "sft", "rl", "chat_eval"])
@pytest.mark.parametrize(
    "field", ["config", "parent", "checkpoint", "mid_checkpoint", "sft_checkpoint", "data"]
)
def test_hostile_fields_of_a_plan_read_nothing(
    service: Service, stage: str, field: str, tmp_path: Path
) -> None:
    (tmp_path / "planted.txt").write_text(PLANTED)
    for hostile in (*FIELDS, "../planted.txt", str(tmp_path / "planted.txt")):
        for said in ({field: hostile}, {"overrides": {field: hostile}}):
            answer = sent(service, "/plans", {"stage": stage, **said})
            assert answer.status_code in (200, 404, 422), (stage, field, hostile, answer.text)
            assert PLANTED not in answer.text and "root:x:0" not in answer.text


def sent(service: Service, path: str, body: object) -> httpx.Response:
    content = json.dumps(body)  # half a character stays one, as an escape
    return service.client.post(path, content=content, headers={"content-type": "application/json"})
