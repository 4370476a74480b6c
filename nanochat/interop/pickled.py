"""Weights out of a `.pt` file of others, read by a process of its own.

The child (`python -m nanochat.interop.pickled FILE OUT`) unpickles with torch's list of what weights may
hold, knows no secret, starts no program, and is bounded in memory, processor time and what it writes. What
comes back is safetensors. Not covered: the network and other files of the user, should torch's list have a
hole.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nanochat.errors import DataError
from nanochat.paths import repo_dir

MIB = 2**20
PLACE = ".weights-"
#: a checkpoint of 100 GB from a slow disk is read within this time
LIMIT_S = 3600
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


def read_weights(file: Path, beside: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file by its name. Raises DataError when it holds anything else.

    `beside`: a directory with room for another copy of it, where one is read at a time.
    """
    beside.mkdir(parents=True, exist_ok=True)
    for left in beside.glob(f"{PLACE}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PLACE, dir=beside) as place:
        out = Path(place) / "weights.safetensors"
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "nanochat.interop.pickled", str(file.resolve()), str(out.resolve())],
                env=_environment(),
                cwd=repo_dir(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{file}: could not be read within {LIMIT_S} s") from None
        if ended.returncode:
            said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1][:300] if said else f"its reader ended with {ended.returncode}"
            raise DataError(f"{file}: not the weights of a model ({why})")
        return load_file(out)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def main(argv: list[str]) -> int:
    file, out = Path(argv[0]), Path(argv[1])
    _bound(file.stat().st_size)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        # copies: tensors of one storage are no safetensors
        save_file({str(name): value.clone().contiguous() for name, value in state.items()}, out)
    except Exception as error:  # whatever it is, it is no weights
        print(" ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        return 1
    return 0


def _bound(size: int) -> None:
    """What reading `size` bytes of weights takes, and no more. Memory: on Linux."""
    limits = [
        (resource.RLIMIT_FSIZE, 2 * size + MIB),
        (resource.RLIMIT_CPU, LIMIT_S),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]
    if sys.platform == "linux":
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits.append((resource.RLIMIT_AS, mapped + 4 * size + 512 * MIB))
    for what, most in limits:
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
