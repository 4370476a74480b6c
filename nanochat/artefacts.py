"""Which artefact a stage reads when the user names none, or names one loosely."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nanochat.checkpoint import MANIFEST, verify
from nanochat.errors import DataError
from nanochat.interop import original
from nanochat.locks import file_lock
from nanochat.paths import find_artefact, stage_dir


def checkpoint_path(name: str, base: Path, stages: Sequence[str]) -> Path:
    """Directory of the checkpoint `name`; empty: the newest of the first of `stages` that has one.

    Raises DataError that says what to train first.
    """
    if name:
        try:
            return checkpoint_in(find_artefact(name, base), base)
        except FileNotFoundError as error:
            raise DataError(f"checkpoint {error}") from None
    for stage in stages:
        if found := newest(stage_dir(base, stage)):
            return found
    raise DataError(
        f"there is no checkpoint to start from: train stage {' or '.join(map(repr, stages))} first"
    )


def checkpoint_in(found: Path, base: Path) -> Path:
    """`found` when it is an artefact, else the newest one directly below it.

    Files of karpathy/nanochat are copied into a checkpoint of ours first. Raises DataError.
    """
    if (found / MANIFEST).is_file():
        return found
    if below := newest(found.parent, found.name):
        return below
    if file := original.model_file(found):
        with file_lock(base / ".import.lock"):
            return original.adopt(file, base)
    raise DataError(f"{found} is no checkpoint: it has no {MANIFEST}")


def newest(stage_directory: Path, tag: str = "*") -> Path | None:
    """The newest whole artefact below a stage's directory, by time of writing."""
    manifests = [
        *stage_directory.glob(f"{tag}/{MANIFEST}"),
        *stage_directory.glob(f"{tag}/step_*/{MANIFEST}"),
    ]
    whole = [m for m in manifests if m.parent.suffix not in (".tmp", ".old") and not m.parent.is_symlink()]
    return max(whole, key=lambda manifest: manifest.stat().st_mtime_ns).parent if whole else None


def reference(directory: Path, base: Path) -> dict[str, str]:
    """How a checkpoint's meta names an artefact it was made from: path below the base, and identity."""
    return {"path": relative(directory, base), "sha256": verify(directory)}


def relative(directory: Path, base: Path) -> str:
    """`directory` below the base directory, or absolute when it lies elsewhere."""
    resolved, root = directory.resolve(), base.resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(resolved)
