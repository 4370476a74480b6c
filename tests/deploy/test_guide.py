"""docs/deploy.md as its reader follows it: environment files, the first key, backup, another machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from nanochat.paths import repo_dir
from server.__main__ import bootstrap_key, check_exposure
from server.settings import Settings
from tests.deploy.test_containers import run_in
from tests.server.fake_worker import FakeWorker, post_run, run_of, store_checkpoint
from tests.server.files.uploads import conversations, upload
from tests.services import Service
from worker.settings import WorkerSettings

PAGE = (repo_dir() / "docs" / "deploy.md").read_text(encoding="utf-8")
sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def block(after: str) -> list[str]:
    """The lines of the first indented block after the text."""
    rest = PAGE[PAGE.index(after) :]
    found = re.search(r"\n\n((?: {4}.*\n)+)", rest)
    assert found, after
    return [line.removeprefix("    ") for line in found.group(1).splitlines()]


def environment_file(name: str) -> dict[str, str]:
    """As systemd reads it: everything behind `=` is the value."""
    return dict(line.split("=", 1) for line in block(f"`/etc/nanochat/{name}`"))


def as_server(command: str, place: Path, server_env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The page's shell function, with its places here and without becoming another user."""
    (line,) = [line for line in block("Commands that look at the database") if line.startswith("as_server()")]
    (place / "server.env").write_text("".join(f"{name}={value}\n" for name, value in server_env.items()))
    line = line.replace("sudo -u nanochat ", "").replace("/etc/nanochat", str(place))
    line = line.replace("cd /opt/nanochat", f"cd {repo_dir()}")
    line = line.replace("$PWD/.venv/bin", str(Path(sys.executable).parent))
    return subprocess.run(["sh", "-c", f"{line}\n{command}"], capture_output=True, text=True, timeout=90)


@sqlite
def test_the_environment_files_are_what_the_processes_understand(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    server, worker = environment_file("server.env"), environment_file("worker.env")
    for given, known in ((server, Settings.model_fields), (worker, WorkerSettings.model_fields)):
        assert {name.removeprefix("NANOCHAT_").lower() for name in given} <= set(known)
        assert [value for value in given.values() if re.search(r"[\s#'\"]", value)] == []
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    read = Settings()
    assert read.allowed_hosts == "train.example.com"
    assert read.sqlalchemy_url == "postgresql+psycopg:///nanochat?host=/run/postgresql"
    here = settings.model_copy(
        update={"allowed_hosts": read.allowed_hosts, "bootstrap_key_file": str(tmp_path / "admin.key")}
    )
    check_exposure(here)  # the first start is not refused
    bootstrap_key(here)
    assert (tmp_path / "admin.key").read_text().startswith("nck_")
    assert server["NANOCHAT_BOOTSTRAP_KEY_FILE"].startswith(server["NANOCHAT_BASE_DIR"])
    for name, value in worker.items():
        monkeypatch.setenv(name, value)
    assert WorkerSettings().url == "http://127.0.0.1:8000"


def test_commands_run_with_the_servers_settings(tmp_path: Path) -> None:
    given = {"NANOCHAT_BASE_DIR": str(tmp_path / "base")}
    (tmp_path / "base").mkdir()
    made = as_server("as_server nanochat keys create --local --name ada --scope read", tmp_path, given)
    assert made.returncode == 0 and "nck_" in made.stdout, made.stderr
    assert (tmp_path / "base" / "nanochat.db").is_file()
    back = as_server("as_server python -m server.migrate --to 0010", tmp_path, given)
    assert back.stdout == "database is at revision 0010\n", back.stderr


def copied(source: Path, target: Path) -> None:
    """What the page has rsync do."""
    (line,) = [line for line in block("every checkpoint a row names") if line.startswith("rsync")]
    if shutil.which("rsync"):
        line = line.replace("/backup/base/", f"{target}/")
        environ = {**os.environ, "NANOCHAT_BASE_DIR": str(source)}
        subprocess.run(["sh", "-ec", f"mkdir -p {target}\n{line}"], env=environ, check=True, timeout=60)
        return
    assert "--exclude=/queue/ --exclude='/nanochat.db*'" in line
    shutil.copytree(source, target, ignore=lambda at, names: [
        name for name in names if Path(at) == source and (name == "queue" or name.startswith("nanochat.db"))
    ])  # fmt: skip


async def test_what_was_backed_up_works_on_another_machine(settings: Settings, tmp_path: Path) -> None:
    """Runs, their log, an uploaded file and a checkpoint, on a new base directory and a new database."""
    content = conversations(50_000)
    settings = settings.model_copy(update={"base_dir": tmp_path / "base"})
    settings.base_dir.mkdir()
    first = Service(settings).start()
    try:
        worker = FakeWorker(first)
        run = post_run(first, stage="tokenizer", name="kept")
        claim = worker.claim()
        first.internal.put(
            f"/internal/attempts/{claim['attempt_id']}/log",
            params={"offset": 0, "fence": claim["fence"]}, content=b"what it said\n",
        ).raise_for_status()  # fmt: skip
        path = f"tokenizer/{run['id']}"
        (settings.base_dir / path).mkdir(parents=True)
        (settings.base_dir / path / "tokenizer.json").write_text("{}")
        await store_checkpoint(first, run["id"], "tokenizer", path, step=0, model=False)
        worker.finish(claim)
        file = upload(first.client, content)
        saved = tmp_path / "nanochat.gz"
        environ = {
            **os.environ,
            "NANOCHAT_BASE_DIR": str(settings.base_dir),
            "NANOCHAT_DATABASE_URL": settings.database_url,
        }
        assert "rows in" in run_in([sys.executable, "-m", "server.backup", "backup", str(saved)], environ)
        copied(settings.base_dir, tmp_path / "backup")
    finally:
        first.stop()
    base = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "backup", base)
    environ |= {"NANOCHAT_BASE_DIR": str(base), "NANOCHAT_DATABASE_URL": ""}
    assert "restored" in run_in([sys.executable, "-m", "server.backup", "restore", str(saved)], environ)
    again = settings.model_copy(
        update={"base_dir": base, "database_url": f"sqlite:///{base / 'nanochat.db'}"}
    )
    second = Service(again).start()
    try:
        assert run_of(second, run["id"])["state"] == "succeeded"
        logs = second.client.get(f"/runs/{run['id']}/logs", params={"format": "text"})
        assert logs.text == "what it said\n"
        (kept,) = second.client.get("/files").json()["items"]
        assert kept["id"] == file["id"] and (base / kept["path"]).read_bytes() == content
        (checkpoint,) = second.client.get(f"/runs/{run['id']}/checkpoints").json()["items"]
        got: httpx.Response = second.client.get(f"/checkpoints/{checkpoint['id']}/download")
        assert got.status_code == 200 and b"tokenizer.json" in got.content
    finally:
        second.stop()
