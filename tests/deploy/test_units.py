"""The systemd units start what is there, and the proxies' examples name what the service needs."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.paths import repo_dir

UNITS = sorted((repo_dir() / "deploy" / "systemd").glob("*.service"))


def read(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return parser


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_module_of_ours_without_root(unit: Path) -> None:
    service = read(unit)["Service"]
    python, option, module = service["ExecStart"].split()
    assert python == "/opt/nanochat/.venv/bin/python" and option == "-m"
    assert (repo_dir() / module / "__main__.py").is_file()
    assert service["User"] == "nanochat" and service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict" and service["Restart"] == "always"
    if module == "worker":  # only the worker is asked to stop; it stops its trainers, which takes time
        assert service["KillMode"] == "mixed" and int(service["TimeoutStopSec"]) > 45


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/nanochat/.venv/bin/python", sys.executable)
        text = text.replace("User=nanochat\nGroup=nanochat\n", "")
        (tmp_path / unit.name.replace("@.", "@a.")).write_text(text)
    files = [str(path) for path in tmp_path.iterdir()]
    ended = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60)
    ours = [line for line in ended.stderr.splitlines() if "nanochat" in line and "Failed to" not in line]
    assert ours == [], ended.stderr


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        (
            "nginx.conf",
            ("$http_upgrade", "$http_host", "proxy_buffering off", "X-Forwarded-Proto", "read_timeout 300s"),
        ),
        ("Caddyfile", ("reverse_proxy 127.0.0.1:8000", "NANOCHAT_HOST=127.0.0.1")),
    ],
)
def test_a_proxy_passes_on_what_streams_need(name: str, needs: tuple[str, ...]) -> None:
    text = (repo_dir() / "deploy" / "proxy" / name).read_text()
    assert [each for each in needs if each not in text] == []
    assert "NANOCHAT_ALLOWED_HOSTS" in text
