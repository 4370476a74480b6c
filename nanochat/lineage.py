"""What an artefact was made from, written down where it is made: parent, tokenizer, data, code.

Every checkpoint keeps this in its `meta.json`, a tokenizer in `origin.json`; the checkpoint event carries
it to the service, which can then follow a model back to its text. Needs the standard library only.

Not covered: uncommitted changes of the code (only that there were some); the bytes of a corpus (it is
known by its shards' names and sizes); packages that the environment holds.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nanochat.paths import repo_dir

ORIGIN = "origin.json"
META = "meta.json"
#: what a checkpoint's meta.json says about where it comes from
FIELDS = ("parent", "tokenizer", "tokenizer_sha256", "corpus", "code", "resumed_from")
GIT_TIMEOUT_S = 10


@cache
def code_version() -> dict[str, Any]:
    """`version` of the package, and where git knows it the `commit`, and whether it was `changed` since."""
    try:
        found: dict[str, Any] = {"version": version("nanochat-service")}
    except PackageNotFoundError:
        found = {"version": None}
    commit = _git("rev-parse", "HEAD")
    if commit:
        found |= {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    return found


def _git(*arguments: str) -> str:
    if not (repo_dir() / ".git").exists():  # a checkout that merely surrounds site-packages is not ours
        return ""
    command = ["git", "-C", str(repo_dir()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def corpus_identity(place: Path, source: str) -> dict[str, Any]:
    """Name, size and fingerprint of the corpus in `place`: its shards' names and bytes, not their content."""
    shards = sorted(place.glob("*.parquet"))
    listed = "".join(f"{shard.name} {shard.stat().st_size}\n" for shard in shards)
    found: dict[str, Any] = {"source": source, "shards": len(shards)}
    try:
        info = json.loads((place / "source.json").read_text(encoding="utf-8"))
        found |= {key: info[key] for key in ("documents", "chars") if key in info}
    except (OSError, ValueError):
        pass  # downloaded shards have no such file
    return found | {"fingerprint": hashlib.sha256(listed.encode()).hexdigest()[:16]}


def origin_of(artefact: Path) -> dict[str, Any] | None:
    """What the artefact says of where it comes from; None for one that says nothing."""
    for name in (ORIGIN, META):
        try:
            told = json.loads((artefact / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return {key: told[key] for key in FIELDS if told.get(key) is not None} or None
    return None
