"""Keys: made once, stored as a digest, gone when revoked or over; sessions of browsers."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text, update

from nanochat_client import AsyncClient, Client, Forbidden, Unauthorized
from nanochat_client.types.keys import KeyCreate, Scope
from server import migrate
from server.keys import local, secret
from server.models import Key, now
from server.redact import RedactingFormatter
from server.settings import Settings
from tests.services import WORKER_TOKEN, Service

#: in two parts, or the scan for secrets finds it
URL = "postgresql://u:" + "hunter2@db/x"
sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_key_is_shown_once_and_only_its_digest_is_stored(
    guarded: Service, caller: Callable[..., httpx.Client], settings: Settings
) -> None:
    admin = caller(Scope.ADMIN)
    made = admin.post("/keys", json={"name": "ada", "scopes": ["read"]}).json()
    key = made["key"]
    assert key.startswith(f"nck_{made['id']}_") and len(key) > 50
    assert key not in admin.get("/keys").text and "digest" not in admin.get("/keys").text
    with migrate.sync_engine(settings.sqlalchemy_url).connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM keys")).all())
    assert key not in stored and key.split("_", 2)[2] not in stored  # a secret may hold a _ itself
    headers = {"authorization": f"Bearer {key}"}
    assert guarded.client.get("/runs", headers=headers).status_code == 200
    assert admin.delete(f"/keys/{made['id']}").status_code == 204
    assert guarded.client.get("/runs", headers=headers).status_code == 401
    assert admin.delete(f"/keys/{made['id']}").status_code == 404


@sqlite
def test_wrong_keys_are_refused(guarded: Service, key_for: Callable[..., str]) -> None:
    key = key_for(Scope.READ)
    key_id = key.split("_")[1]
    wrong = [
        key[:-1] + ("a" if key[-1] != "a" else "b"),
        key.upper(),
        f"nck_{key_id}_",
        f"nck_{key_id}",
        "nck_",
        "x",
    ]
    wrong += [
        f"nck_{key_id}_{secret.digest(key.split('_', 2)[2])}",
        f"nck__{'a' * 43}",
        f"Bearer {key}",
        "é" * 60,
    ]
    for given in wrong:
        headers = {"authorization": f"Bearer {given}".encode()}
        assert guarded.client.get("/runs", headers=headers).status_code == 401, given
    assert guarded.client.get("/runs", headers={"authorization": f"Basic {key}"}).status_code == 401
    assert guarded.client.get(f"/runs?token={key}&api_key={key}").status_code == 401


@sqlite
def test_a_key_whose_time_is_over_is_refused(
    guarded: Service, key_for: Callable[..., str], settings: Settings
) -> None:
    key = key_for(Scope.READ, expires_in_s=60)
    headers = {"authorization": f"Bearer {key}"}
    with migrate.sync_engine(settings.sqlalchemy_url).begin() as connection:
        connection.execute(update(Key).values(expires_at=now()))
    assert guarded.client.get("/runs", headers=headers).status_code == 401


@sqlite
def test_the_last_use_is_noted(settings: Settings, key_for: Callable[..., str]) -> None:
    running = Service(settings.model_copy(update={"auth": "on"})).start()
    running.client.get("/runs", headers={"authorization": f"Bearer {key_for(Scope.READ)}"})
    running.stop()
    assert local.listed(settings)[0].used_at is not None


@sqlite
def test_the_first_key_closes_a_service_that_was_open(service: Service, settings: Settings) -> None:
    """`auto` on loopback: open as long as there is no key."""
    assert service.client.get("/runs").status_code == 200
    body = {"name": "admin", "scopes": ["admin"]}
    key = service.client.post("/keys", json=body).json()["key"]
    assert service.client.get("/runs").status_code == 401
    assert service.client.get("/runs", headers={"authorization": f"Bearer {key}"}).status_code == 200


@sqlite
def test_a_browser_signs_in_and_out(guarded: Service, key_for: Callable[..., str]) -> None:
    key = key_for(Scope.READ, Scope.OPERATE)
    with httpx.Client(base_url=guarded.base_url, timeout=30) as browser:
        assert browser.post("/login", json={"key": "nck_no"}).status_code == 401
        answer = browser.post("/login", json={"key": key})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and key not in cookie
        csrf = answer.json()["csrf"]
        assert browser.get("/session").json()["csrf"] == csrf
        assert browser.get("/runs").status_code == 200
        refused = browser.post("/runs/none/cancel")
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf")
        assert browser.post("/runs/none/cancel", headers={"x-csrf-token": csrf}).status_code == 404
        session = browser.cookies["nanochat_session"]
        browser.post("/logout")
        assert browser.get("/runs").status_code == 401
        key_id, until, mac = session.split(".")
        for forged in (
            f"{key_id}.{int(until) + 9}.{mac}",
            f"other.{until}.{mac}",
            f"{key_id}.1.{mac}",
            "..",
            "",
        ):
            assert browser.get("/runs", headers={"cookie": f"nanochat_session={forged}"}).status_code == 401
        local.revoke(guarded.settings, key_id)
        guarded.app.state.keys.forget()
        assert browser.get("/runs", headers={"cookie": f"nanochat_session={session}"}).status_code == 401


@sqlite
def test_a_key_for_workers_is_as_good_as_their_token(caller: Callable[..., httpx.Client]) -> None:
    worker = caller(Scope.WORKER)
    assert worker.post("/internal/attempts/none/claim", json={"worker_id": "w"}).status_code == 409
    assert worker.get("/runs").status_code == 403


@sqlite
async def test_the_sdk_makes_lists_and_revokes_keys(guarded: Service, key_for: Callable[..., str]) -> None:
    admin = key_for(Scope.ADMIN)
    with Client(guarded.base_url, admin) as client:
        made = client.create_key("bob", scopes=["infer"], expires_in_s=3600)
        assert made.key not in str(client.keys()) and "bob" in {key.name for key in client.keys().items}
        with Client(guarded.base_url, made.key) as bob, pytest.raises(Forbidden):
            bob.runs()
    async with AsyncClient(guarded.base_url, admin) as other:
        await other.revoke_key(made.id)
        assert made.id not in {key.id for key in (await other.keys()).items}
        assert (await other.create_key("carol")).scopes == ["infer", "operate", "read", "submit"]
    with Client(guarded.base_url, made.key) as bob, pytest.raises(Unauthorized):
        bob.models()


@sqlite
def test_the_command_line_makes_keys_with_no_server_and_with_one(
    guarded: Service, settings: Settings
) -> None:
    environ = {
        **os.environ,
        "NANOCHAT_BASE_DIR": str(settings.base_dir),
        "NANOCHAT_DATABASE_URL": settings.database_url,
        "NANOCHAT_URL": guarded.base_url,
    }

    def keys(*arguments: str, **more: str) -> str:
        command = [str(Path(sys.executable).with_name("nanochat")), "keys", *arguments]
        ended = subprocess.run(command, env=environ | more, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    key = keys("create", "--local").strip()
    made = keys("create", "--name", "dora", "--scope", "read", NANOCHAT_API_KEY=key).strip()
    assert made.startswith("nck_")
    listed = keys("list", NANOCHAT_API_KEY=key)
    assert "dora\tread" in listed and made not in listed
    keys("revoke", made.split("_")[1], NANOCHAT_API_KEY=key)
    assert "dora" not in keys("list", "--local")


def test_a_key_file_is_written_once_and_stored_anywhere(tmp_path: Path, settings: Settings) -> None:
    file, body = tmp_path / "secrets" / "admin.key", KeyCreate(name="bootstrap", scopes=[Scope.ADMIN])
    assert local.ensure(settings, file, body) is True
    assert file.stat().st_mode & 0o777 == 0o600
    assert local.ensure(settings, file, body) is False
    assert [row.id for row in local.listed(settings)] == [file.read_text().split("_")[1]]
    local.revoke(settings, local.listed(settings)[0].id)
    assert local.ensure(settings, file, body) is True, "another database learns the key of the file"
    file.write_text("hunter2")
    with pytest.raises(ValueError, match="holds no key"):
        local.ensure(settings, file, body)


@sqlite
def test_a_planted_key_is_in_no_answer_and_in_no_log(
    guarded: Service, key_for: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_for(Scope.READ)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s", [WORKER_TOKEN]))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.DEBUG)
    headers = {"authorization": f"Bearer {key}", "x-request-id": "planted"}
    answers = [
        guarded.client.get("/runs?cursor=broken", headers=headers),
        guarded.client.get("/runs?limit=no", headers=headers | {"cookie": f"nanochat_session={key}"}),
        guarded.client.post("/keys", headers=headers, json={"name": key}),
        guarded.client.post("/login", json={"key": key + "wrong"}),
        guarded.client.post("/login", content=key.encode()),
        guarded.client.post("/internal/workers", headers={"authorization": f"Bearer {WORKER_TOKEN}x"}),
    ]
    try:
        raise RuntimeError(f"GET /x with Bearer {key}, token {WORKER_TOKEN}, {URL}")
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application: %s", {"key": key})
    said = written.getvalue() + "".join(answer.text + str(answer.headers) for answer in answers)
    assert "Exception in ASGI application" in said and "nck_" in said
    for planted in (key, key.split("_", 2)[2], WORKER_TOKEN, "hunter2"):
        assert planted not in said
