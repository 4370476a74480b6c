"""A real Caddy with our example, deploy/proxy/Caddyfile: no TLS, on a free port, before a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanochat.paths import repo_dir
from tests.deploy.nginx import NAME, answers
from tests.services import eventually, free_port

EXAMPLE = repo_dir() / "deploy" / "proxy" / "Caddyfile"
NEEDED = pytest.mark.skipif(shutil.which("caddy") is None, reason="needs Caddy: apt install caddy")


def example(port: int, server: str) -> str:
    """The file as shipped, but for TLS and addresses."""
    text = EXAMPLE.read_text()
    assert text.count(f"\n{NAME} {{") == text.count("127.0.0.1:8000") == 1
    text = text.replace(f"\n{NAME} {{", f"\nhttp://{NAME}:{port} {{\n\tbind 127.0.0.1")
    options = "{\n\tadmin off\n\tauto_https off\n}\n"
    return options + text.replace("127.0.0.1:8000", server.removeprefix("http://"))


def environment(place: Path) -> dict[str, str]:
    """Nothing of it is written elsewhere."""
    return {**os.environ, "HOME": str(place), "XDG_DATA_HOME": str(place), "XDG_CONFIG_HOME": str(place)}


@contextmanager
def running(place: Path, server: str) -> Iterator[int]:
    """Its port, once the server answers through it. `server`: its URL."""
    port = free_port()
    config = place / "Caddyfile"
    config.write_text(example(port, server))
    with (place / "caddy.log").open("w") as log:
        process = subprocess.Popen(
            ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"],
            env=environment(place), stdout=log, stderr=log,
        )  # fmt: skip
        try:
            eventually(lambda: process.poll() is None and answers(port), timeout_s=30)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=20)
