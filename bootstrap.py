#!/usr/bin/env python3
"""Make and update `.venv`. Standard library only: it runs before anything is installed.

    python3 bootstrap.py          what `make up` needs
    python3 bootstrap.py --dev    and the development tools
    python3 bootstrap.py --test   and what the tests need of the system (a browser)

A stamp in `.venv`, written last, says what is installed: nothing is done twice, and an installation that
was interrupted is repaired. Not covered: Windows; Conda environments.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
NEEDED = (3, 11)
TORCH = "torch==2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
DISK_BYTES = 3 * 10**9
DISK_CUDA_BYTES = 9 * 10**9


def fail(sentence):
    print(f"setup: {sentence}", file=sys.stderr)
    raise SystemExit(1)


def right_python():
    """Go on under a new enough Python, or say which one is missing."""
    if sys.version_info[:2] >= NEEDED:
        return
    for minor in range(14, 10, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            os.execv(found, [found, __file__, *sys.argv[1:]])
    version = ".".join(map(str, sys.version_info[:3]))
    fail(
        f"Python 3.11 or newer is needed, this is {version}: sudo apt-get install python3.11 python3.11-venv"
    )


def wanted_stamp():
    digest = hashlib.sha256(repr(sys.version_info[:3]).encode())
    for name in ("pyproject.toml", "constraints.txt", "bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def installed(kind, stamp):
    file = VENV / f".{kind}.stamp"
    return PYTHON.exists() and file.exists() and file.read_text() == stamp


def make_venv():
    """A working `.venv` with pip; a broken one is made anew."""
    if (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0
    ):
        return
    try:
        import ensurepip  # noqa: F401 - Debian splits it off
        import venv
    except ImportError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if os.geteuid() == 0 and shutil.which("apt-get"):
            run(["apt-get", "install", "-y", "-q", f"python{version}-venv"], "cannot install python3-venv")
            os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])
        fail(f"Python's venv module is missing: sudo apt-get install python{version}-venv")
    if VENV.exists():
        print("setup: .venv is incomplete, making it anew", flush=True)
        shutil.rmtree(VENV)
    print("setup: making .venv", flush=True)
    venv.create(VENV, with_pip=True)


def run(command, sentence, **options):
    """Run a command, or say what did not work."""
    if subprocess.run([str(part) for part in command], cwd=ROOT, **options).returncode != 0:
        fail(f"{sentence}: the messages above say why; run the same command again to go on")


def has_nvidia():
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def torch_source():
    """pip arguments that choose torch's build: CUDA where there is an NVIDIA device, else CPU."""
    if has_nvidia():
        return []
    report = VENV / "torch-report.json"
    command = [PYTHON, "-m", "pip", "install", "-q", "--dry-run", "--no-deps", "--ignore-installed"]
    command += ["--report", report, TORCH]
    asked = subprocess.run([str(part) for part in command], capture_output=True)
    if asked.returncode == 0:
        found = json.loads(report.read_text())["install"][0]
        report.unlink()
        needs = found["metadata"].get("requires_dist") or []
        if not any(need.startswith(("nvidia-", "cuda-", "triton")) for need in needs):
            return []  # what pip takes here is a CPU build already
    return ["--index-url", TORCH_CPU_INDEX]


def install(kind):
    free = shutil.disk_usage(ROOT).free
    needed = DISK_CUDA_BYTES if has_nvidia() else DISK_BYTES
    if free < needed:
        fail(f"{free / 1e9:.1f} GB are free in {ROOT}, the installation needs {needed / 1e9:.0f} GB")
    make_venv()
    extra = "[dev]" if kind == "dev" else ""
    print(f"setup: installing ({'with' if extra else 'without'} development tools); once only", flush=True)
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    source = torch_source()
    if source:
        run([*pip, *source, TORCH], "cannot install torch")
    run([*pip, "-c", "constraints.txt", TORCH, "-e", f".{extra}"], "cannot install the packages")


def browser():
    """Make sure there is a browser for the tests, and say which."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        print("setup: installing chromium with apt", flush=True)
        run(["apt-get", "update", "-qq"], "cannot read the package lists", stdout=subprocess.DEVNULL)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        run(command, "cannot install chromium", env=environ, stdout=subprocess.DEVNULL)
        found = shutil.which("chromium")
    if not found:
        print("setup: no chromium on PATH and no right to install it: taking Playwright's own", flush=True)
        run([PYTHON, "-m", "playwright", "install", "chromium"], "cannot download Playwright's browser")
        found = "Playwright's own chromium"
    print(f"setup: browser for the tests: {found}", flush=True)


def main(arguments):
    right_python()
    kind = "dev" if {"--dev", "--test"} & set(arguments) else "run"
    stamp = wanted_stamp()
    if not installed(kind, stamp) and not (kind == "run" and installed("dev", stamp)):
        install(kind)
        (VENV / f".{kind}.stamp").write_text(stamp)
    if "--test" in arguments:
        browser()


if __name__ == "__main__":
    main(sys.argv[1:])
