"""Where things lie on disk: one function per kind of place, all below the base directory.

    $NANOCHAT_BASE_DIR (default ~/.cache/nanochat)
      base_data/<source>/shard_00000.parquet …   text shards; the last one is the validation split
      tokenizer/<tag>/                           tokenizer.json, token_bytes.pt, manifest.json
      base_checkpoints/<tag>/step_000100/        and likewise mid_, chatsft_, chatrl_checkpoints
      runs/<run id>/attempt_<n>/                 config.json, events.jsonl, run.log of one attempt
      files/<kind>/<name>                        what users uploaded (nanochat/files.py)
      logs/  report/  tasks/

Nothing here creates a directory except where a docstring says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

TAG = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")

#: directory of the artefacts each stage writes, below the base directory
STAGE_DIRS: Mapping[str, str] = {
    "tokenizer": "tokenizer",
    "base": "base_checkpoints",
    "mid": "mid_checkpoints",
    "sft": "chatsft_checkpoints",
    "rl": "chatrl_checkpoints",
}


def base_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The root of all artefacts: `NANOCHAT_BASE_DIR`, else `~/.cache/nanochat`. Not created here."""
    configured = (os.environ if environ is None else environ).get("NANOCHAT_BASE_DIR", "")
    return Path(configured).expanduser().resolve() if configured else Path.home() / ".cache" / "nanochat"


def repo_dir() -> Path:
    """The checkout (or site-packages directory) that holds `configs/` and `migrations/`."""
    return Path(__file__).resolve().parent.parent


def check_tag(tag: str) -> str:
    """`tag` itself when it may name a directory. Raises ValueError otherwise."""
    if not TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is not a usable tag: use a-z, 0-9, dot, dash and underscore, 64 at most")
    return tag


def stage_dir(base: Path, stage: str) -> Path:
    """Directory that holds every artefact of `stage`. Raises KeyError for a stage that makes none."""
    return base / STAGE_DIRS[stage]


def step_dir(base: Path, stage: str, tag: str, step: int) -> Path:
    """Directory of one checkpoint, e.g. `base_checkpoints/d12/step_000100`."""
    return stage_dir(base, stage) / check_tag(tag) / f"step_{step:06d}"


def attempt_dir(base: Path, run_id: str, attempt: int) -> Path:
    """Directory of one attempt of a run in the service."""
    return base / "runs" / check_tag(run_id) / f"attempt_{attempt}"


def resolve_under(root: Path, relative: str) -> Path:
    """`root / relative`, symlinks followed, refused (ValueError) when it would leave `root`."""
    if "\0" in relative:
        raise ValueError("a path holds a NUL byte")
    target = (root / relative).resolve()
    if not target.is_relative_to(root.resolve()):
        raise ValueError(f"{relative!r} leads out of {root}")
    return target


def find_artefact(name: str, base: Path) -> Path:
    """A path as users type it: absolute, from the working directory, or below the base directory.

    Links such as `latest.pt` are followed. Raises FileNotFoundError that names both places looked at.
    """
    given = Path(name).expanduser()
    candidates = [given] if given.is_absolute() else [Path.cwd() / given, base / given]
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    looked = " nor ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(f"{name!r} does not exist: found neither {looked}")


def replace_link(link: Path, target: Path) -> None:
    """Point `link` at `target` (relative to the link's directory) in one atomic step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent))
    os.replace(fresh, link)  # noqa: PTH105 - Path.replace follows the same call; this one names its atomicity
