"""`make audit`: known vulnerabilities in what is installed (Python, npm), and secrets in what is committed.

Each of the three looks says `clean`, `found` or `not looked`. A registry that serves no advisories answers
"nothing known" to everything; so each look is first shown something that must be found. Exit status: 0 all
three looked and are clean, 1 something was found, 3 nothing was found but not every look could be taken.
Not covered: what the vendored Swagger UI (server/docs_page) is vulnerable to, and the history
of the repository (only what is committed now).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: apart from the service's packages, which it looks at
TOOLS = ROOT / ".venv" / "audit"
PINS = ("pip-audit==2.10.1", "detect-secrets==1.5.0")
#: CVE-2018-18074 and later ones
VULNERABLE_PYTHON = "requests==2.19.1"
PLANTED = "AKIA" + "QYLPMN5HHHFPZAM2"  # the form of an AWS key, and none; apart, or this line is found
CLEAN, FOUND, NOT_LOOKED = "clean", "found", "not looked"
Look = tuple[str, list[str]]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=900
    )


def tool(name: str) -> Path:
    return TOOLS / "bin" / name


def install_tools() -> None:
    if not tool("pip").exists():
        venv.create(TOOLS, with_pip=True)
    done = run(tool("pip"), "install", "-q", "--disable-pip-version-check", *PINS)
    if done.returncode:
        raise SystemExit(f"audit: pip could not install {' and '.join(PINS)}: {done.stderr.strip()[-300:]}")


def pip_audit(*arguments: str | Path) -> list[str] | None:
    """`name version: advisories` of what is vulnerable; None when the registry cannot be asked."""
    ended = run(tool("pip-audit"), "--progress-spinner", "off", "-f", "json", *arguments)
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    return [
        f"{package['name']} {package['version']}: {', '.join(entry['id'] for entry in package['vulns'])}"
        for package in packages
        if package.get("vulns")
    ]


def python_packages() -> Look:
    with tempfile.TemporaryDirectory() as directory:
        canary = Path(directory) / "requirements.txt"
        canary.write_text(VULNERABLE_PYTHON + "\n")
        if not pip_audit("-r", canary, "--no-deps", "--disable-pip"):
            return NOT_LOOKED, [
                f"this package index knows nothing of {VULNERABLE_PYTHON}: it has no advisories"
            ]
    site = next((ROOT / ".venv" / "lib").glob("python3*/site-packages"))
    found = pip_audit("--path", site)
    if found is None:
        return NOT_LOOKED, ["pip-audit did not answer"]
    return (FOUND if found else CLEAN), found


def npm_packages() -> Look:
    try:
        ended = run("npm", "audit", "--json", cwd=ROOT / "web")
    except FileNotFoundError:
        return NOT_LOOKED, ["there is no npm here"]
    try:
        answer = json.loads(ended.stdout)
        vulnerable = answer["vulnerabilities"]
    except (ValueError, KeyError):
        return NOT_LOOKED, [f"npm's registry does not answer audits: {_last(ended.stdout + ended.stderr)}"]
    found = [f"{name}: {entry['severity']}" for name, entry in sorted(vulnerable.items())]
    return (FOUND if found else CLEAN), found


def secrets() -> Look:
    with tempfile.TemporaryDirectory() as directory:
        canary = Path(directory) / "planted.txt"
        canary.write_text(f"key = {PLANTED}\n")
        if not scan(canary, "--all-files", cwd=canary.parent):
            return NOT_LOOKED, ["the scanner does not find what was planted"]
    tracked = [
        name for name in run("git", "ls-files").stdout.splitlines() if not name.startswith("server/docs_page")
    ]
    found = scan(*tracked)
    if found is None:
        return NOT_LOOKED, ["detect-secrets did not answer"]
    return (FOUND if found else CLEAN), found


def scan(*arguments: str | Path, cwd: Path = ROOT) -> list[str] | None:
    """`file:line: kind`. Without the guesses by entropy: those point at every hash."""
    guesses = ("Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector")
    disabled = [part for name in guesses for part in ("--disable-plugin", name)]
    ended = run(tool("detect-secrets"), "scan", *disabled, *arguments, cwd=cwd)
    try:
        results = json.loads(ended.stdout)["results"]
    except (ValueError, KeyError):
        return None
    return [
        f"{file}:{item['line_number']}: {item['type']}" for file, items in results.items() for item in items
    ]


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" {}\n")]
    return lines[0][:160] if lines else "no answer"


LOOKS: dict[str, Callable[[], Look]] = {
    "Python packages": python_packages,
    "npm packages": npm_packages,
    "secrets in the repository": secrets,
}


def main() -> int:
    install_tools()
    verdicts = []
    for name, look in LOOKS.items():
        verdict, lines = look()
        verdicts.append(verdict)
        print(f"{name}: {verdict}", *(f"  {line}" for line in lines), sep="\n", flush=True)
    if FOUND in verdicts:
        return 1
    return 3 if NOT_LOOKED in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
