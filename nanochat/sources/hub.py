"""Shards of public corpora, downloaded: resumed after a break, retried, checked, renamed when whole.

Plain HTTP with ranges, so that a connection lost at 90 % costs 10 %. `HF_ENDPOINT` names a mirror,
`HF_TOKEN` is sent as a bearer token. Not covered: private mirrors with other sign-in.
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nanochat.errors import DataError

TRIES = 6
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
_BROKEN = (urllib.error.URLError, TimeoutError, ConnectionError, EOFError)


@dataclass(frozen=True)
class Corpus:
    """A public data set of `count` shards. The very last one is validation, however many are fetched."""

    repo: str
    count: int

    def names(self, wanted: int) -> list[str]:
        """The first `wanted` shards (-1: all) and the validation shard."""
        train = self.count - 1 if wanted < 0 else min(wanted, self.count - 1)
        return [f"shard_{number:05d}.parquet" for number in [*range(train), self.count - 1]]

    def url(self, name: str) -> str:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{endpoint}/datasets/{self.repo}/resolve/main/{name}"


CORPORA = {
    "fineweb-edu": Corpus("karpathy/fineweb-edu-100b-shuffle", 1823),
    "climbmix": Corpus("karpathy/climbmix-400b-shuffle", 6543),
}


def download(
    corpus: Corpus,
    directory: Path,
    wanted: int,
    workers: int = 4,
    say: Callable[[str], None] = print,
    wait_s: float = 1.0,
) -> None:
    """Fetch the shards that are missing. Raises DataError when one cannot be had."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [name for name in corpus.names(wanted) if not (directory / name).exists()]

    def fetch(name: str) -> None:
        size = fetch_file(corpus.url(name), directory / name, wait_s=wait_s)
        say(f"{name}: {size / 1e6:.1f} MB")

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done in [pool.submit(fetch, name) for name in missing]:
            done.result()


def fetch_file(url: str, target: Path, tries: int = TRIES, wait_s: float = 1.0) -> int:
    """Download `url` to `target`, going on where an earlier attempt stopped. Returns the size in bytes.

    Waits `wait_s`·2^k between tries. Raises DataError when all fail or the checksum is wrong twice.
    """
    part = target.with_name(f"{target.name}.part")
    problem = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(wait_s * 2 ** (attempt - 1))
        try:
            expected = _fetch_rest(url, part)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # our part is longer than the file: start over
                part.unlink(missing_ok=True)
            elif error.code in (401, 403, 404):
                raise DataError(f"{url} answers {error.code}: {_advice(error.code)}") from None
            problem = f"HTTP {error.code}"
            continue
        except _BROKEN as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        if expected and _sha256(part) != expected:
            part.unlink()
            problem = "its checksum is wrong"
            continue
        size = part.stat().st_size
        part.replace(target)
        return size
    raise DataError(
        f"{url} could not be fetched in {tries} tries ({problem}). Check the network, set HF_ENDPOINT to a "
        "mirror, or use --source pydocs, which needs no network"
    )


def _fetch_rest(url: str, part: Path) -> str:
    """Append what is missing to `part`. Returns the file's sha256 if the server tells it, else ''."""
    have = part.stat().st_size if part.exists() else 0
    request = _Request(url, headers={"User-Agent": "nanochat"})
    if token := os.environ.get("HF_TOKEN"):
        # not sent on to the storage host that a redirect leads to
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.build_opener(_KeepChecksum(request))
    with opener.open(request, timeout=TIMEOUT_S) as response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        left = int(length) if length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                if left is not None:
                    left -= len(chunk)
        if left:
            raise EOFError(f"the connection ended {left} bytes early")
        etag = request.checksum or response.headers.get("ETag", "")
    etag = etag.removeprefix("W/").strip('"').lower()
    return etag if len(etag) == 64 and all(c in "0123456789abcdef" for c in etag) else ""


class _Request(urllib.request.Request):
    checksum = ""


class _KeepChecksum(urllib.request.HTTPRedirectHandler):
    """Remembers X-Linked-ETag: the hub names a large file's sha256 in its redirect only."""

    def __init__(self, request: _Request) -> None:
        self._request = request

    def redirect_request(  # type: ignore[no-untyped-def]  # the standard library does not type it either
        self, req, fp, code, msg, headers, newurl
    ):
        if etag := headers.get("X-Linked-ETag"):
            self._request.checksum = etag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _advice(code: int) -> str:
    if code == 404:
        return "there is no such file; the data set has moved or HF_ENDPOINT is wrong"
    return "set HF_TOKEN to a token that may read this data set"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
