"""A real nginx with our example, deploy/proxy/nginx.conf: no TLS, on a free port, before real servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nanochat.paths import repo_dir
from tests.services import eventually, free_port

NAME = "train.example.com"
NEEDED = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx: apt install nginx-light")


def example(port: int, first: str, second: str | None = None) -> str:
    """The file as shipped, but for TLS and addresses; with `second`, its line for a second server."""
    text = (repo_dir() / "deploy" / "proxy" / "nginx.conf").read_text()
    text = re.sub(r"server \{\n    listen 80;.*?\n\}\n", "", text, flags=re.DOTALL)
    text = re.sub(r"    ssl_\w+ .*\n", "", text).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = text.replace("server 127.0.0.1:8000", f"server {first.removeprefix('http://')}")
    if second is not None:
        assert text.count("# server 127.0.0.1:8001") == 1
        text = text.replace("# server 127.0.0.1:8001", f"server {second.removeprefix('http://')}")
    return text


@contextmanager
def running(place: Path, first: str, second: str | None = None) -> Iterator[int]:
    """Its port, once a server answers through it. `first`, `second`: URLs of servers."""
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {place / kind};" for kind in kinds)
    config = place / "nginx.conf"
    # a large body goes to a directory that is pytest's own: not to be written by nginx's usual user
    user = "user root; " if os.geteuid() == 0 else ""
    config.write_text(
        f"{user}daemon off; pid {place}/pid; error_log {place}/error.log; events {{}}\n"
        f"http {{ access_log off; {paths}\n{example(port, first, second)}\n}}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(place), "-c", str(config)], stderr=subprocess.PIPE)
    try:
        eventually(lambda: process.poll() is None and answers(port), timeout_s=15)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"host": NAME}).status_code == 200
    except httpx.TransportError:
        return False
