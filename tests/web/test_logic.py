"""The dashboard's own unit tests, so that one command runs all tests. `make web` installs what they need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js: sudo apt install nodejs npm")
@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs web/node_modules: make web")
def test_what_the_dashboard_reads_is_read_right() -> None:
    done = subprocess.run(["npm", "test"], cwd=WEB, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text()


def test_the_first_load_is_small() -> None:
    """250 KB with gzip, for a first visit over a slow tunnel."""
    import gzip

    built = WEB.parent / "server" / "static"
    files = [path for path in built.rglob("*") if path.is_file()]
    assert built / "index.html" in files
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 250_000


def test_the_page_runs_under_a_strict_content_security_policy() -> None:
    """No inline script or style, nothing from elsewhere."""
    page = (WEB.parent / "server" / "static" / "index.html").read_text()
    assert "<style" not in page
    assert 'src="/ui/' in page
    assert all("src=" in tag for tag in page.split("<script")[1:])
    assert "http" not in page
