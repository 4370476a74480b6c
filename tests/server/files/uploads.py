"""A user's side of an upload, byte by byte."""

from __future__ import annotations

import hashlib
import json
import socket
from typing import Any

import httpx

from tests.services import Service, eventually

GOOD = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def conversations(size: int) -> bytes:
    """At least `size` bytes of conversations, no two alike."""
    lines: list[bytes] = []
    while sum(map(len, lines)) < size:
        said = [{"role": "user", "content": f"{len(lines)}?"}, {"role": "assistant", "content": "x" * 900}]
        lines.append(json.dumps({"messages": said}).encode() + b"\n")
    return b"".join(lines)


def announce(
    client: httpx.Client, content: bytes, name: str = "a.jsonl", kind: str = "conversations", **changes: Any
) -> httpx.Response:
    digest = hashlib.sha256(content).hexdigest()
    body = {"name": name, "kind": kind, "size": len(content), "sha256": digest, **changes}
    return client.post("/files", json=body)


def announced(
    client: httpx.Client, content: bytes, name: str = "a.jsonl", kind: str = "conversations"
) -> str:
    """The id of a fresh upload."""
    answer = announce(client, content, name, kind)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def send(client: httpx.Client, file_id: str, data: Any, offset: int) -> httpx.Response:
    """`data`: bytes, or an iterator of them, which is sent without its length."""
    return client.patch(f"/files/{file_id}", content=data, headers={"upload-offset": str(offset)})


def upload(client: httpx.Client, content: bytes, name: str = "a.jsonl", kind: str = "conversations") -> Any:
    """The whole way; the file as it ended."""
    answer = send(client, announced(client, content, name, kind), content, 0)
    assert answer.status_code == 200, answer.text
    return settled(client, answer.json()["id"])


def settled(client: httpx.Client, file_id: str) -> Any:
    """The file once its check is over."""

    def look() -> Any:
        file = client.get(f"/files/{file_id}").raise_for_status().json()
        return file if file["state"] in ("ready", "rejected") else None

    return eventually(look, 60)


def offset_of(client: httpx.Client, file_id: str) -> int:
    return int(client.get(f"/files/{file_id}").raise_for_status().headers["upload-offset"])


class Torn:
    """A PATCH whose connection can be cut: it announces `length` bytes and has sent fewer."""

    def __init__(self, service: Service, file_id: str, offset: int, length: int) -> None:
        port = int(service.base_url.rpartition(":")[2])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"PATCH /files/{file_id} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupload-offset: {offset}\r\n"
        self.socket.sendall(f"{head}content-length: {length}\r\n\r\n".encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def cut(self) -> None:
        self.socket.close()

    def answer(self) -> bytes:
        """Everything that the server says until it closes."""
        said = b""
        while data := self.socket.recv(65536):
            said += data
        return said
