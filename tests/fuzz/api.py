"""Schemathesis against a real server: what /openapi.json says is what the service does, whatever is sent.

    python -m tests.fuzz.api                        # ten minutes without keys, ten minutes with
    python -m tests.fuzz.api --auth on --seconds 60 --seed 7

`python -m server` on a free port of 127.0.0.1 with SQLite in a temporary directory, a Valkey, and rows of
every kind (tests/web/seed.py), whose ids are among those that are tried. Phases coverage, fuzzing and
stateful; what is expected of which operation, and why, is in schemathesis.toml. Ends with 1 when there is a
finding: one of schemathesis, a traceback or an error in the server's log, a server that has gone.

Schemathesis is installed apart, once, in ~/.cache/nanochat-schemathesis. Not covered: models that answer (no
checkpoint of the seeds has files that an engine could load), WebSockets and streams, PostgreSQL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from nanochat_client.types.keys import KeyCreate, Scope
from server.keys import local
from server.settings import Settings
from tests.services import WORKER_TOKEN, Service, free_port, valkey
from tests.web import seed as seeds

VERSION = "4.32.5"
ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "schemathesis.toml"
PLACE = Path.home() / ".cache" / "nanochat-schemathesis"
REPORTS = ROOT / "build" / "fuzz" / "api"
#: with keys these would end the very key that everything is asked with
OWN_KEY = ("DELETE /keys/{key_id}", "POST /logout")
#: what schemathesis may take beyond its time: it finishes what it has begun
GRACE_S = 120.0
BROKEN = re.compile(r"^Traceback|^\S+ \S+ (ERROR|CRITICAL) ", re.MULTILINE)
LINES = 40


class Running(Service):
    """A server in a process of its own, as the seeds see one. `key`: what users and schemathesis send."""

    def __init__(self, home: Path, auth: str, redis_url: str) -> None:
        self.port, self.log = free_port(), home / "server.log"
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.settings = Settings(base_dir=home / "base", redis_url=redis_url)
        # without keys the worker token opens all, and no request can revoke it
        self.key = local.create(self.settings, every_scope()) if auth == "on" else WORKER_TOKEN
        environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("NANOCHAT_")},
            "NANOCHAT_BASE_DIR": str(self.settings.base_dir), "NANOCHAT_PORT": str(self.port),
            "NANOCHAT_REDIS_URL": redis_url, "NANOCHAT_AUTH": auth, "NANOCHAT_WORKER_TOKEN": WORKER_TOKEN,
            "NANOCHAT_LOG_LEVEL": "warning",
        }  # fmt: skip
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "tests.fuzz.api_server"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
        headers = {"authorization": f"Bearer {self.key}"}
        self.client = httpx.Client(base_url=self.base_url, timeout=30, headers=headers)
        as_worker = {"authorization": f"Bearer {WORKER_TOKEN}"}
        self.internal = httpx.Client(base_url=self.base_url, timeout=30, headers=as_worker)

    def __enter__(self) -> Running:
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                if self.client.get("/readyz").is_success:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.__exit__()
        raise RuntimeError(f"the server did not start: {self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.internal.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wrong(self) -> list[str]:
        """What its log and its end say against it."""
        text = self.log.read_text()
        found = [text[match.start() :][:2000] for match in BROKEN.finditer(text)]
        return found if self.process.poll() is None else [*found, f"it ended ({self.process.returncode})"]


def every_scope() -> KeyCreate:
    return KeyCreate(name="fuzz", scopes=list(Scope))


def filled(server: Running) -> dict[str, list[str]]:
    """Rows of every kind; their ids by the names that paths have for them."""
    host = seeds.Host(server)
    made = seeds.everything(server, host)
    live = made["live"]
    live.steps(180, 220, 300)
    hook = server.client.post("/webhooks", json={"url": "http://receiver.invalid/"}).raise_for_status().json()
    tokenizer = next(c for c in _items(server, "/checkpoints") if c["stage"] == "tokenizer")
    place = server.settings.base_dir / tokenizer["path"]  # one whose files can be downloaded
    place.mkdir(parents=True)
    (place / "tokenizer.json").write_text("{}")
    return {
        "run_id": [live.run_id, made["failed"], made["blocked"], *_ids(server, "/runs")],
        "pipeline_id": _ids(server, "/pipelines"),
        "checkpoint_id": [tokenizer["id"], *_ids(server, "/checkpoints")],
        "file_id": _ids(server, "/files"),
        "webhook_id": [hook["id"]],
        "attempt_id": [live.claim["attempt_id"]],
        "worker_id": [host.id],
    }


def _items(server: Running, path: str) -> list[dict[str, str]]:
    return list(server.client.get(path, params={"limit": 50}).raise_for_status().json()["items"])


def _ids(server: Running, path: str) -> list[str]:
    return [item["id"] for item in _items(server, path)]


def config(ids: dict[str, list[str]]) -> str:
    """The committed settings; half of the ids in paths are of rows that there are."""
    lines = [CONFIG.read_text(), "\n# ---- of this run\n"]
    for name, known in ids.items():
        values = ", ".join(f'"{one}"' for one in dict.fromkeys(known))
        lines.append(f"[dictionaries.{name}]\nvalues = [{values}]\n")
    lines.append("[parameters]")
    lines += [f'"path.{name}" = {{ dictionary = "{name}", probability = 0.5 }}' for name in ids]
    return "\n".join(lines) + "\n"


def install(place: Path) -> Path:
    """The program, installed when it is not there."""
    program = place / "bin" / "schemathesis"
    if not program.exists():
        print(f"fuzz-api: installing schemathesis {VERSION} in {place}, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", f"schemathesis=={VERSION}"], check=True)
    return program


def ask(program: Path, server: Running, settings: Path, auth: str, seconds: int, seed: int) -> int:
    """Run schemathesis; its exit code, 1 when it had to be ended. What it says is in build/fuzz/api."""
    command = [
        str(program), "--config-file", str(settings), "run", f"{server.base_url}/openapi.json",
        "--phases", "coverage,fuzzing,stateful", "--max-time", str(seconds), "--seed", str(seed),
        "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    if auth == "on":
        for operation in OWN_KEY:
            command += ["--exclude-name", operation]
    else:  # an open service takes who shows nothing, and there is one required header beside the key's
        command += ["--exclude-checks", "ignored_auth,missing_required_header"]
    environ = {**os.environ, "NANOCHAT_FUZZ_KEY": server.key}
    with (REPORTS / f"auth-{auth}.txt").open("w") as output:
        asked = subprocess.Popen(
            command, cwd=settings.parent, env=environ, stdout=output, stderr=output, start_new_session=True
        )
        try:
            return asked.wait(seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            print(f"fuzz-api: schemathesis did not end {GRACE_S:.0f} s after its time", file=sys.stderr)
            return 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGKILL)
            asked.wait()


@contextlib.contextmanager
def running(auth: str) -> Iterator[tuple[Running, Path]]:
    """A server with rows, and the settings for it."""
    with tempfile.TemporaryDirectory(prefix="nanochat-fuzz-") as directory, valkey() as redis_url:
        home = Path(directory)
        with Running(home, auth, redis_url) as server:
            settings = home / "schemathesis.toml"
            settings.write_text(config(filled(server)))
            yield server, settings


def fuzz(program: Path, auth: str, seconds: int, seed: int) -> int:
    """0: no finding; 1: findings; 2: nothing was tested."""
    print(f"fuzz-api: NANOCHAT_AUTH={auth}, {seconds} s, seed {seed}", flush=True)
    with running(auth) as (server, settings):
        code = ask(program, server, settings, auth, seconds, seed)
        wrong = server.wrong()
    said = REPORTS / f"auth-{auth}.txt"
    print("\n".join(said.read_text().splitlines()[-LINES:]))
    for one in wrong:
        print(f"fuzz-api: the server: {one}")
    print(f"fuzz-api: all that was said is in {said}", flush=True)
    return 1 if wrong and not code else code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.api", description=__doc__)
    parser.add_argument("--auth", choices=("off", "on", "both"), default="both")
    parser.add_argument("--seconds", type=int, default=600, help="of each server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--place", type=Path, default=PLACE, help="where schemathesis is installed")
    given = parser.parse_args()
    program = install(given.place)
    REPORTS.mkdir(parents=True, exist_ok=True)
    modes = ("off", "on") if given.auth == "both" else (given.auth,)
    return max(fuzz(program, auth, given.seconds, given.seed) for auth in modes)


if __name__ == "__main__":
    sys.exit(main())
