"""Artefacts in storage that several machines share: s3://bucket/prefix, file:///mnt/shared, memory://x.

The storage mirrors the base directory: `base_checkpoints/<tag>/step_000100/` there is the same path here.
An artefact is whole where its `manifest.json` lies, which is written last and taken away first, and whose
sha256 of every file is checked when it is fetched. What is fetched appears in its place at once or not.

A file that a user uploaded is stored as an artefact of one file, `content`, at the file's own path.

Not covered: data sets and corpora (every host makes or fetches its own); two hosts that write one artefact
at the same moment (a run has one live attempt); cleaning up after uploads that were cut off in the middle
(a bucket's rule for incomplete multipart uploads does that). Access keys are the storage's own affair:
AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from nanochat.locks import file_lock
from nanochat.paths import resolve_under

MANIFEST = "manifest.json"
CONTENT = "content"
CHUNK_BYTES = 8 * 1024 * 1024
#: have no directories; making one would make the bucket
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
STEP = re.compile(r"step_(\d{6,})")


class StorageError(Exception):
    """The storage does not answer, does not have it, or has something else; the text says which."""


def preload(url: str) -> None:
    """Import what the URL needs, seconds of work for S3, and connect to nothing: before a process forks."""
    import fsspec

    with suppress(ImportError, ValueError):  # said when the storage is used
        fsspec.get_filesystem_class(fsspec.core.split_protocol(url)[0] or "file")


class Storage:
    """What lies below `url`, for the base directory `base`. Raises StorageError for a URL of no storage."""

    def __init__(self, url: str, base: Path) -> None:
        import fsspec

        self.url, self._base = url, base
        try:
            # no caches: other hosts write, and a process that was forked must not share connections
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise StorageError(f"{url} needs a package: {error}") from None
        except Exception as error:
            raise StorageError(f"{url!r} is no storage: {error}") from None
        self._root = str(root).rstrip("/")
        self._has_directories = url.partition(":")[0] not in OBJECT_STORES

    def check(self) -> None:
        """Write, read and remove a small file. Raises StorageError that says what is wrong."""
        probe = f"{self._root}/.nanochat-{os.getpid()}-{os.urandom(4).hex()}"
        with _told(self.url):
            self._make(self._root)
            self._fs.pipe_file(probe, b"nanochat")
            found = self._fs.cat_file(probe)
            self._fs.rm_file(probe)
        if found != b"nanochat":
            raise StorageError(f"{self.url} returns something else than what was written")

    def has(self, path: str) -> bool:
        """Whether the artefact is there and whole."""
        manifest = self._file(path, MANIFEST)
        with _told(self.url):
            return bool(self._fs.exists(manifest))

    def steps(self, tag_path: str) -> list[str]:
        """Whole checkpoints below a tag's directory, e.g. `base_checkpoints/<tag>`, lowest step first."""
        place = self._place(tag_path)
        with _told(self.url):
            found = self._fs.glob(f"{place}/step_*/{MANIFEST}")
        names = {PurePosixPath(str(file)).parent.name for file in found}
        return [f"{tag_path}/{name}" for name in sorted(names, key=_step) if STEP.fullmatch(name)]

    def push(self, path: str) -> int:
        """Store an artefact of this host; returns the bytes that were sent, 0 when it was there already.

        Raises StorageError, FileNotFoundError when it is not (or no longer) here.
        """
        here, place = resolve_under(self._base, path), self._place(path)
        manifest = (here / MANIFEST).read_bytes()
        sent = 0
        with _told(self.url):
            if self._fs.exists(there := self._file(path, MANIFEST)):
                if self._fs.cat_file(there) == manifest:
                    return 0
                self._fs.rm_file(there)  # another one of that name: not whole until ours is
            self._make(place)
            for name, expected in _files(manifest).items():
                self._fs.put_file(str(here / name), self._file(path, name))
                if (size := self._fs.size(self._file(path, name))) != expected["bytes"]:
                    raise StorageError(f"{self.url}: {path}/{name} has {size} bytes, not {expected['bytes']}")
                sent += int(expected["bytes"])
            self._fs.pipe_file(there, manifest)
        return sent + len(manifest)

    def pull(self, path: str) -> bool:
        """Fetch an artefact that this host lacks; False when it was here. Raises StorageError."""
        here = resolve_under(self._base, path)
        if (here / MANIFEST).is_file():
            return False
        with file_lock(self._base / ".pull.lock"):
            if (here / MANIFEST).is_file():  # somebody else of this host fetched it meanwhile
                return False
            fresh = here.with_name(f"{here.name}.pull")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            try:
                self._fetch(path, fresh)
                if here.exists():  # without a manifest: what somebody left half done
                    shutil.rmtree(here)
                fresh.rename(here)
                _sync(here.parent)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return True

    def push_file(self, path: str, content: Path, sha256: str) -> None:
        """Store a file, to be fetched as `path`, whatever was there before. Raises StorageError."""
        there = self._file(path, MANIFEST)
        listed = {CONTENT: {"bytes": content.stat().st_size, "sha256": sha256}}
        with _told(self.url):
            if self._fs.exists(there):
                self._fs.rm_file(there)  # not whole until ours is
            self._make(self._place(path))
            self._fs.put_file(str(content), self._file(path, CONTENT))
            self._fs.pipe_file(there, json.dumps({"files": listed}).encode())

    def pull_file(self, path: str) -> bool:
        """Fetch a file that this host lacks, or has with other content; False when it has it.

        What the storage does not know is taken as it is here. Raises StorageError.
        """
        here = resolve_under(self._base, path)
        with file_lock(self._base / ".pull.lock"), _told(self.url):
            if not self._fs.exists(self._file(path, MANIFEST)):
                if here.is_file():
                    return False
                raise StorageError(f"{self.url} has no {path}")
            expected = _files(self._fs.cat_file(self._file(path, MANIFEST))).get(CONTENT, {})
            if here.is_file() and _sha256(here) == expected.get("sha256"):
                return False
            here.parent.mkdir(parents=True, exist_ok=True)
            fresh = here.with_name(f".{here.name}.pull")
            try:
                if self._copy(self._file(path, CONTENT), fresh) != expected.get("sha256"):
                    raise StorageError(f"{self.url}: {path} is damaged, it does not match {MANIFEST}")
                fresh.replace(here)
            finally:
                fresh.unlink(missing_ok=True)
            _sync(here.parent)
        return True

    def files(self, path: str) -> list[str]:
        """Paths of the whole files that are stored below a directory, e.g. `files/text`."""
        place = self._place(path)
        with _told(self.url):
            found = self._fs.glob(f"{place}/*/{MANIFEST}")
        return sorted(f"{path}/{PurePosixPath(str(file)).parent.name}" for file in found)

    def remove(self, path: str) -> None:
        """Remove an artefact, or everything below a tag's directory. Nothing there is no error."""
        place = self._place(path)
        with _told(self.url):
            if not self._fs.exists(place):
                return
            if self._fs.exists(manifest := self._file(path, MANIFEST)):
                self._fs.rm_file(manifest)
            self._fs.rm(place, recursive=True)

    def _make(self, place: str) -> None:
        if self._has_directories:
            self._fs.makedirs(place, exist_ok=True)

    def _fetch(self, path: str, fresh: Path) -> None:
        with _told(self.url):
            if not self._fs.exists(self._file(path, MANIFEST)):
                raise StorageError(f"{self.url} has no {path}")
            manifest = self._fs.cat_file(self._file(path, MANIFEST))
            for name, expected in _files(manifest).items():
                digest = self._copy(self._file(path, name), fresh / name)
                if digest != expected["sha256"]:
                    raise StorageError(f"{self.url}: {path}/{name} is damaged, it does not match {MANIFEST}")
        with (fresh / MANIFEST).open("wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        _sync(fresh)

    def _copy(self, source: str, target: Path) -> str:
        """sha256 of what was copied."""
        digest = hashlib.sha256()
        with self._fs.open(source, "rb", block_size=CHUNK_BYTES) as there, target.open("wb") as here:
            while data := there.read(CHUNK_BYTES):
                digest.update(data)
                here.write(data)
            here.flush()
            os.fsync(here.fileno())
        return digest.hexdigest()

    def _place(self, path: str) -> str:
        resolve_under(self._base, path)  # refuses what leads out of the base directory, there as well as here
        return f"{self._root}/{PurePosixPath(path)}"

    def _file(self, path: str, name: str) -> str:
        return f"{self._place(path)}/{name}"


class _told:
    """Whatever the file system raises, as StorageError."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, StorageError):
            raise StorageError(f"{self._url}: {type(error).__name__}: {error}") from error


def _files(manifest: bytes) -> dict[str, dict[str, Any]]:
    """The files that a manifest names. Raises StorageError for names that are paths."""
    try:
        files: dict[str, dict[str, Any]] = json.loads(manifest)["files"]
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"a {MANIFEST} in the storage cannot be read") from None
    for name in files:
        if name != os.path.basename(name) or name in ("", ".", "..", MANIFEST) or "\0" in name:  # noqa: PTH119
            raise StorageError(f"a {MANIFEST} in the storage names {name!r}, which is no plain file name")
    return files


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _step(name: str) -> int:
    found = STEP.fullmatch(name)
    return int(found.group(1)) if found else -1


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
