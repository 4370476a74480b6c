#!/usr/bin/env python3
"""Makes `.venv` and installs the service into it. Standard library only; a second call installs nothing.

    python3 bootstrap.py          what the service needs to run
    python3 bootstrap.py --dev    and the development tools
    python3 bootstrap.py --test   and what the tests need of the system (a browser, iproute2, faketime …)

What was installed is written to a stamp at the very end; a `.venv` whose installation was cut short is
known by the note it left, and made again. The syntax is that of Python 3.7, so that an old Python gets as
far as the sentence about its age. Not covered: Windows; Conda environments; packages that somebody removed
by hand from a finished `.venv` (delete the directory then).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".installed.json"
UNFINISHED = VENV / ".installing"
OLDEST = (3, 11)
DISK_GB = {"cpu": 3, "cuda": 9}
TORCH = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BROWSERS = ("chromium", "chromium-browser")
# what some tests drive, and the package it is in
PROGRAMS = {"ip": "iproute2", "faketime": "faketime"}
# only a machine of CI gets these by itself: apt may start a server that it installs
SERVERS = {"nginx": "nginx-light", "caddy": "caddy"}
# the smallest of Debian with Chinese: 1.6 MB
FONT = "fonts-wqy-microhei"
FONTS = Path("/usr/share/fonts")


class Stop(Exception):
    """One sentence for the person at the terminal: what is wrong and how to fix it."""


def main(arguments: list[str]) -> int:
    try:
        for argument in arguments:
            if argument not in ("--dev", "--test"):
                raise Stop(f"unknown argument {argument}: use --dev, --test or nothing")
        use_a_new_enough_python()
        for_tests = "--test" in arguments
        install("dev" if arguments else "runtime", may_use_apt=for_tests)
        if for_tests:
            print(f"setup: browser for the tests: {find_browser()}", flush=True)
            find_programs()
            find_font()
    except Stop as stop:
        print(f"setup: {stop}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


# ---------------------------------------------------------------- surroundings


def use_a_new_enough_python() -> None:
    """Returns in a Python that is new enough: this one, or another on PATH in its place. Raises Stop."""
    if sys.version_info[:2] >= OLDEST:
        return
    for minor in (13, 12, 11):
        other = shutil.which(f"python3.{minor}")
        if other:
            os.execv(other, [other, str(Path(__file__).resolve()), *sys.argv[1:]])
    raise Stop(
        f"Python 3.11 or newer is needed and this is {platform.python_version()}: install it (`sudo apt "
        "install python3.11-venv` where your system has it, else `pyenv install 3.11`) and run again"
    )


def check_venv_module(may_use_apt: bool) -> None:
    """Debian splits venv off Python's own package. Raises Stop."""
    if _can_make_venvs():
        return
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if may_use_apt and apt_install(package):
        return
    raise Stop(f"Python's venv module is missing: run `sudo apt install {package}` and try again")


def _can_make_venvs() -> bool:
    command = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def check_disk() -> None:
    needed_gb, free_gb = DISK_GB[accelerator()], shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise Stop(
            f"the installation needs about {needed_gb} GB of disk and {free_gb:.1f} GB are free in {ROOT}: "
            "make room and run again"
        )


def accelerator() -> str:
    """`cuda` where there is an NVIDIA device or its driver's tool, else `cpu`."""
    found = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvidiactl").exists()
    return "cuda" if found or shutil.which("nvidia-smi") else "cpu"


def apt_install(package: str) -> bool:
    """True when Debian's package manager installed `package`; only root may ask it."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print(f"setup: installing {package} with apt", flush=True)
    environ = dict(os.environ, DEBIAN_FRONTEND="noninteractive")

    def apt(*arguments: str) -> bool:
        command = ["apt-get", "-qq", *arguments]
        return subprocess.run(command, env=environ, stdout=subprocess.DEVNULL).returncode == 0

    install = ("install", "-y", "--no-install-recommends", package)
    return apt(*install) or (apt("update") and apt(*install))


def find_browser() -> str:
    """Which browser the tests take: the one on PATH, else apt's when root, else Playwright's. Raises Stop."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None and apt_install("chromium"):
        found = shutil.which("chromium")
    if found:
        return found
    print("setup: no chromium on PATH, and none from apt (needs root): taking Playwright's own", flush=True)
    if subprocess.run([str(PYTHON), "-m", "playwright", "install", "chromium"]).returncode:
        raise Stop("there is no browser for the tests: run `sudo apt install chromium` and try again")
    return "Playwright's own chromium"


def find_programs() -> list[str]:
    """Packages of programs that tests drive and that cannot be had here: those tests skip, as this says."""
    may_install = PROGRAMS | (SERVERS if os.environ.get("CI") else {})
    left = []
    for name, package in {**PROGRAMS, **SERVERS}.items():
        if shutil.which(name) is None and not (name in may_install and apt_install(package)):
            left.append(package)
    if left:
        print(f"setup: some tests skip, for want of programs: sudo apt install {' '.join(left)}", flush=True)
    return left


def find_font() -> None:
    """A font with Chinese for the pictures that tests keep of Chinese pages; boxes instead fail nothing."""
    if has_chinese_font() or apt_install(FONT):
        return
    print(
        f"setup: no Chinese font, pictures of Chinese pages have boxes: sudo apt install {FONT}", flush=True
    )


def has_chinese_font() -> bool:
    """Whether fontconfig knows one; where it cannot be asked, whether ours is there."""
    if shutil.which("fc-list") is None:
        return any(FONTS.glob("truetype/wqy/*"))
    return bool(subprocess.run(["fc-list", ":lang=zh-cn", "family"], stdout=subprocess.PIPE).stdout.strip())


# ---------------------------------------------------------------- installation


def install(what: str, may_use_apt: bool = False) -> None:
    """Bring `.venv` to what the project asks for (`runtime` or `dev`). Does nothing twice. Raises Stop."""
    if is_installed(what):
        return
    lock = os.open(str(ROOT), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two calls at once the second waits, then finds all done
        if not is_installed(what):
            _install(what, may_use_apt)
    except OSError as error:
        raise Stop(f"cannot write to {VENV} ({error.strerror}): make it yours, or remove it") from error
    finally:
        os.close(lock)


def _install(what: str, may_use_apt: bool) -> None:
    started = time.monotonic()
    check_disk()
    make_venv(may_use_apt)
    UNFINISHED.touch()
    try:
        install_packages(what)
    except Stop:
        UNFINISHED.unlink()  # pip leaves a whole .venv when it fails: the next call goes on from there
        raise
    stamp = {**read_stamp(), **{part: fingerprint() for part in parts(what)}}
    fresh = STAMP.with_suffix(".new")
    fresh.write_text(json.dumps(stamp))
    fresh.replace(STAMP)
    UNFINISHED.unlink()
    print(f"setup: installed in {time.monotonic() - started:.0f} s", flush=True)


def parts(what: str) -> tuple[str, ...]:
    return ("runtime", "dev") if what == "dev" else ("runtime",)


def is_installed(what: str) -> bool:
    if not PYTHON.exists() or UNFINISHED.exists():
        return False
    stamp = read_stamp()
    return all(stamp.get(part) == fingerprint() for part in parts(what))


def read_stamp() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def fingerprint() -> str:
    """Changes when what would be installed changes, or where, or by what."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    for fact in (str(VENV), platform.python_version(), platform.machine(), accelerator()):
        digest.update(b"\0" + fact.encode())
    return digest.hexdigest()


def make_venv(may_use_apt: bool) -> None:
    """A `.venv` with pip in it, unless a usable one is there. A half-made one is made again."""
    if UNFINISHED.exists():
        print("setup: the last installation was cut short: making .venv again", flush=True)
        shutil.rmtree(VENV)
    elif VENV.is_dir() and not works():
        print("setup: the Python of .venv is gone, too old or without pip: making it again", flush=True)
        shutil.rmtree(VENV)
    if PYTHON.exists():
        return
    check_venv_module(may_use_apt)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    print(f"setup: making .venv with Python {platform.python_version()}", flush=True)
    command = [sys.executable, "-m", "venv", str(VENV)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        lines = made.stdout.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise Stop(f"`python3 -m venv .venv` failed ({lines[-1]}): fix that and run again")


def works() -> bool:
    check = f"import pip, sys; sys.exit(sys.version_info[:2] < {OLDEST})"
    try:
        return subprocess.run([str(PYTHON), "-c", check], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def install_packages(what: str) -> None:
    """torch in the right build, everything else under the pins, then the project itself. Raises Stop."""
    import tomllib  # not at the top: an old Python does not have it

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = ["setuptools>=80", *project["dependencies"]]
    if what == "dev":
        wanted += project["optional-dependencies"]["dev"]
    if accelerator() == "cuda":
        print("setup: torch: the CUDA build, for the NVIDIA device of this machine", flush=True)
    elif pip_offers_cpu_build():
        print("setup: torch: the CPU build that this machine's pip offers", flush=True)
        wanted = [f"torch=={TORCH}+cpu", *(name for name in wanted if not name.startswith("torch=="))]
    else:
        index = os.environ.get("TORCH_INDEX_URL", TORCH_CPU_INDEX)
        print(f"setup: torch: the CPU build from {index} (TORCH_INDEX_URL names another place)", flush=True)
        pip_install("--no-deps", "--index-url", index, f"torch=={TORCH}")
    print(f"setup: {len(wanted)} packages and what they need, pinned by constraints.txt; once", flush=True)
    pip_install("-c", str(ROOT / "constraints.txt"), *wanted)
    pip_install("--no-deps", "--no-build-isolation", "-e", str(ROOT))


def pip_offers_cpu_build() -> bool:
    """Whether pip, configured as it is here, sees a build without CUDA. Reads names and fetches nothing:
    a dry run of older pips fetches the whole CUDA build to look at it."""
    if sys.platform != "linux":
        return True
    command = [str(PYTHON), "-m", "pip", "index", "versions", "torch"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return f"{TORCH}+cpu" in answer.decode("utf-8", "replace").replace(",", " ").split()


def pip_install(*arguments: str) -> None:
    # --no-compile: Python compiles what is imported at its first use; compiling all of torch takes 20 s
    options = ["-q", "--no-compile", "--prefer-binary", "--no-input", "--disable-pip-version-check"]
    if subprocess.run([str(PYTHON), "-m", "pip", "install", *options, *arguments]).returncode:
        raise Stop("pip could not install (it says why above): check the network and run again")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
