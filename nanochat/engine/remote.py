"""A model that runs elsewhere, behind the same socket: we render, an OpenAI-compatible engine generates.

Only ids are sent (`POST /v1/completions` with `prompt: [ids]`), so no text of a user is ever parsed for
special tokens over there. One thread and one connection per choice; closing it stops the generation.
Not covered: `echo`, the calculator.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from nanochat.engine.server import SEED_STEP, BadRequest, Frame, TextServer
from nanochat.tokenizer import Tokenizer

CONNECT_S, SILENT_S = 10.0, 600.0
NEVER = ("<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|output_start|>", "<|output_end|>")
PASSED_ON = (
    "max_tokens", "temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "min_p",
    "repetition_penalty", "logprobs", "ignore_eos",
)  # fmt: skip


class Unreachable(OSError):
    """The engine at the URL does not answer, or not as an OpenAI-compatible one does."""


class Upstream:
    """The engine at `url` (with or without /v1), and the model of it that is asked: `wanted` or its only."""

    def __init__(self, url: str, wanted: str = "", key: str = "") -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url!r} is no http address")
        self._https, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        names = [model["id"] for model in self._models()]
        if wanted not in names and len(names) != 1:  # a guess would answer with somebody else's model
            raise Unreachable(f"{url} has no model {wanted!r} but {', '.join(names) or 'none'}")
        self.model = wanted if wanted in names else names[0]

    def connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=CONNECT_S)

    def ask(self, connection: http.client.HTTPConnection, body: Frame) -> http.client.HTTPResponse:
        """Send a completion; the answer's head has come when this returns. Raises OSError."""
        content = json.dumps({"model": self.model, **body})
        connection.request("POST", f"{self._path}/v1/completions", content, self._headers)
        return connection.getresponse()

    def _models(self) -> list[dict[str, Any]]:
        connection = self.connection()
        try:
            connection.request("GET", f"{self._path}/v1/models", headers=self._headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise Unreachable(
                    f"GET /v1/models says {answer.status}: {body[:200].decode('utf-8', 'replace')}"
                )
            return list(json.loads(body)["data"])
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(f"no answer from {self._host}: {error}") from None
        finally:
            connection.close()


class Call:
    """One choice on its way; `hang_up` from any thread ends it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream, self._connection = upstream, upstream.connection()
        self._socket: socket.socket | None = None  # the connection forgets it when its answer ends it
        self._ended = False

    def ask(self, body: Frame) -> http.client.HTTPResponse:
        """Connect and send. Raises OSError."""
        self._connection.connect()
        self._socket = self._connection.sock
        self._socket.settimeout(SILENT_S)
        if self._ended:
            raise ConnectionAbortedError("nobody waits for it")
        return self._upstream.ask(self._connection, body)

    def hang_up(self) -> None:
        """Wake the thread that reads; the other end stops generating."""
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()


class RemoteServer(TextServer):
    """Serves one connection until the other side hangs up."""

    def __init__(
        self, tokenizer: Tokenizer, context: int, connection: socket.socket, upstream: Upstream
    ) -> None:
        super().__init__(tokenizer, context, connection)
        self._upstream = upstream
        self._running: dict[str, list[Call]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def _ready(self) -> Frame:
        return {**super()._ready(), "device": "remote"}

    def _post(self, frames: list[Frame]) -> None:
        with self._writing:
            super()._post(frames)

    def _answer(self, request_id: str, frame: Frame) -> list[Frame]:
        match frame["op"]:
            case "generate":
                return self._generate(request_id, frame)
            case "abort":
                for call in self._forget(request_id):
                    call.hang_up()
                return []
            case _:
                return super()._answer(request_id, frame)

    def _generate(self, request_id: str, frame: Frame) -> list[Frame]:
        if frame.get("echo"):
            raise BadRequest("echo is not supported by a remote engine", "unsupported_parameter", "echo")
        ids = self._prompt(frame)
        room = self._room(ids, frame)
        bias = {str(self.tokenizer.special(name)): -100.0 for name in NEVER}
        body = {key: frame[key] for key in PASSED_ON if frame.get(key) is not None}
        body |= {
            "prompt": ids, "max_tokens": room, "top_k": frame.get("top_k") or -1, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "logit_bias": bias | (frame.get("logit_bias") or {}),
            "stop_token_ids": [self.tokenizer.special("<|assistant_end|>"), self.tokenizer.bos],
        }  # fmt: skip
        calls = [Call(self._upstream) for _ in range(frame.get("n", 1))]
        with self._lock:
            self._running[request_id] = calls
        self._post([{"op": "accepted", "id": request_id, "prompt_tokens": len(ids)}])
        for index, call in enumerate(calls):
            seeded = {**body, "seed": frame["seed"] + SEED_STEP * index}
            work = (request_id, index, call, seeded)
            threading.Thread(target=self._run, args=work, daemon=True).start()
        return []

    def _run(self, request_id: str, index: int, call: Call, body: Frame) -> None:
        try:
            self._follow(request_id, index, call.ask(body), "logprobs" in body)
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            self._failed(request_id, f"the engine at the other end: {error or type(error).__name__}")
        finally:
            call.close()
            with self._lock:
                left = self._running.get(request_id, [])
                if call in left:
                    left.remove(call)
                if not left:
                    self._running.pop(request_id, None)

    def _follow(self, request_id: str, index: int, answer: http.client.HTTPResponse, logprobs: bool) -> None:
        """Turn the stream into frames."""
        if answer.status != 200:
            return self._failed(request_id, _message(answer.read()), busy=answer.status in (429, 503))
        where = {"id": request_id, "index": index}
        tokens, cached, reason = 0, 0, ""
        told: list[Frame] = []  # log-probabilities that go with the next text
        for line in answer:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                return self._failed(request_id, _message(data))
            choices = chunk.get("choices") or [{}]
            text, reason = choices[0].get("text") or "", choices[0].get("finish_reason") or reason
            usage = chunk.get("usage") or {}
            tokens = usage.get("completion_tokens", tokens + bool(text))
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or cached
            told += _entries(choices[0].get("logprobs"))
            if text or (told and choices[0].get("finish_reason")):
                delta = {"op": "delta", **where, "text": text, "tokens": tokens}
                self._say(request_id, {**delta, "logprobs": told if logprobs else None})
                told = []
        if not reason:
            return self._failed(request_id, "its stream ended early")
        times = {"queue_s": 0.0, "prefill_s": 0.0, "decode_s": 0.0}
        end = {
            "op": "finish",
            **where,
            "reason": "length" if reason == "length" else "stop",
            "tokens": tokens,
        }
        self._say(request_id, {**end, "cached_tokens": cached, **times})
        return None

    def _say(self, request_id: str, frame: Frame) -> None:
        with self._lock:
            wanted = request_id in self._running
        if wanted:
            with suppress(OSError):  # the parent has gone
                self._post([frame])

    def _failed(self, request_id: str, message: str, busy: bool = False) -> None:
        calls = self._forget(request_id)
        if not calls:
            return  # it was aborted, or another choice has failed already
        code = "overloaded" if busy else "engine_error"
        with suppress(OSError):
            self._post([{"op": "error", "id": request_id, "code": code, "message": message, "param": None}])
        for call in calls:
            call.hang_up()

    def _forget(self, request_id: str) -> list[Call]:
        with self._lock:
            return self._running.pop(request_id, [])


def upstream(url: str, wanted: str) -> Upstream:
    """The engine at `url`; a key for it comes from NANOCHAT_ENGINE_KEY. Raises Unreachable."""
    return Upstream(url, wanted, os.environ.get("NANOCHAT_ENGINE_KEY", ""))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _entries(told: Any) -> list[Frame]:
    """Log-probabilities of a completion's chunk as our frames have them."""
    if not told:
        return []
    tops = told.get("top_logprobs") or [None] * len(told["tokens"])
    return [
        {**_named(token, value), "top": [_named(name, of) for name, of in (top or {}).items()]}
        for token, value, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
    ]


def _named(token: str, value: float | None) -> Frame:
    return {"id": -1, "token": token, "bytes": list(token.encode()), "logprob": value}
