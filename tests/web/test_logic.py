"""The dashboard's own unit tests, so that one command runs all tests. `make web` installs what they need."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services import Service

WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js: sudo apt install nodejs npm")
@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs web/node_modules: make web")
def test_what_the_dashboard_reads_is_read_right() -> None:
    done = subprocess.run(["npm", "test"], cwd=WEB, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text()


def test_the_first_load_is_small() -> None:
    """250 KB with gzip, for a first visit over a slow tunnel; half of that is enough so far."""
    built = WEB.parent / "server" / "static"
    page = (built / "index.html").read_text()
    asked = re.findall(r'(?:src|href)="/ui/([^"]+)"', page)
    assert len(asked) >= 3, "script, style and what the script imports"
    sizes = {name: len(gzip.compress((built / name).read_bytes())) for name in asked}
    assert sum(sizes.values()) + len(gzip.compress(page.encode())) < 125_000, sizes
    everything = sum(len(gzip.compress(path.read_bytes())) for path in built.rglob("*") if path.is_file())
    assert everything < 250_000, "all pages together"


def test_the_page_runs_under_a_strict_content_security_policy() -> None:
    """No inline script or style, nothing from elsewhere."""
    page = (WEB.parent / "server" / "static" / "index.html").read_text()
    assert "<style" not in page
    assert 'src="/ui/' in page
    assert all("src=" in tag for tag in page.split("<script")[1:])
    assert "http" not in page


def test_assets_travel_packed(service: Service) -> None:
    """What the sizes above count is what goes over the wire; who cannot unpack gets it as it is."""
    name = next((WEB.parent / "server" / "static" / "assets").glob("index-*.js")).name
    packed = service.client.get(f"/ui/assets/{name}")
    plain = service.client.get(f"/ui/assets/{name}", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) * 2 < int(plain.headers["content-length"])
    assert "immutable" in packed.headers["cache-control"]
