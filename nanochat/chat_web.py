"""A chat page for one checkpoint, without the service: the page, and the OpenAI routes it speaks.

    GET /    GET /healthz    GET /v1/models    GET /v1/models/{id}    POST /v1/chat/completions

One thread runs the engine, which answers all conversations together; every connection has a thread that
waits for its words, and ends them when the browser leaves. Listens on loopback only: it knows no keys, and
`ssh -L` reaches it from elsewhere.
Not covered: other routes of OpenAI's, several models, restarts: `nanochat up` has them.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import select
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from nanochat.chat_requests import DONE, ChatRequest, RequestError, Shapes, event, parse

if TYPE_CHECKING:  # --help loads no torch
    from nanochat.engine_thread import Answer, EngineThread

PAGE = Path(__file__).with_name("chat_page.html")
MAX_BODY = 4 << 20  # bytes
STALLED_S = 60.0  # a client that neither sends nor takes anything
WATCH_S = 0.2  # between looks whether the client is still there, while the engine is silent
STAGES = ("rl", "sft", "mid", "base")  # furthest first


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="chat_web", description="A chat page for a checkpoint.")
    flags.add_argument(
        "--checkpoint", default="", help="path or latest.pt link; default: the newest chat model"
    )
    flags.add_argument("--port", type=int, default=8000, help="0: any free one")
    flags.add_argument("--host", default="127.0.0.1", help="a loopback address")
    flags.add_argument(
        "--max_tokens",
        "--max-tokens",
        type=int,
        default=512,
        help="tokens per answer at most",
    )
    flags.add_argument("-t", "--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    flags.add_argument("-k", "--top_k", "--top-k", type=int, default=50, help="sample among so many; 0: all")
    flags.add_argument("--slots", type=int, default=8, help="answers generated at once; more wait")
    return flags


def main(argv: Sequence[str]) -> int:
    """0 when told to stop, 1 when there is no model, no port or no engine any more, 2 for wrong flags."""
    flags = parser()
    args = flags.parse_args(argv)
    if args.max_tokens < 1 or not 0 <= args.temperature <= 2 or args.top_k < 0:
        flags.error("--max_tokens must be 1 or more, --temperature between 0 and 2, --top_k 0 or more")
    if not 1 <= args.slots <= 256 or not 0 <= args.port <= 65535:
        flags.error("--slots must be between 1 and 256, --port between 0 and 65535")
    if not loopback(args.host):
        flags.error(f"--host={args.host}: without keys it listens on loopback only (use ssh -L)")

    import torch

    from nanochat.artefacts import checkpoint_path
    from nanochat.checkpoint import BrokenCheckpoint, load_model
    from nanochat.engine import Options, make_engine
    from nanochat.engine_thread import EngineThread
    from nanochat.errors import DataError
    from nanochat.paths import base_dir

    try:
        server = ChatServer((args.host, args.port), Defaults(args))  # a taken port is known before the wait
    except OSError as error:
        print(f"chat_web: port {args.port}: {error.strerror}; name another with --port", file=sys.stderr)
        return 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = checkpoint_path(args.checkpoint, base_dir(), STAGES)
        model, tokenizer, meta = load_model(place, device, torch.bfloat16)
    except (DataError, BrokenCheckpoint, OSError) as error:
        print(f"chat_web: {error}", file=sys.stderr)
        server.server_close()
        return 1
    name = f"{place.parent.name}:{meta.get('stage', 'model')}:{meta.get('step', 0)}"
    engine = EngineThread(make_engine(model, tokenizer, Options(lanes=args.slots)))
    del model
    server.offer(engine, name)
    for sign in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs start with SIGINT ignored
        signal.signal(sign, signal.default_int_handler)
    threading.Thread(target=server.end_with_engine, daemon=True).start()
    print(f"{name} talks on {server.url}; Ctrl-C leaves", flush=True)
    try:
        server.serve_forever()
        return 1
    except KeyboardInterrupt:
        print()
        return 0
    finally:
        server.server_close()
        engine.close()


def loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Defaults:
    """What counts where a request says nothing."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.max_tokens: int = args.max_tokens
        self.temperature: float = args.temperature
        self.top_k: int = args.top_k

    def frame(self, request: ChatRequest) -> dict[str, Any]:
        return request.frame(self.max_tokens, self.temperature, self.top_k)


class ChatServer(ThreadingHTTPServer):
    """`url` is where it listens, from the start; `offer` comes before `serve_forever`."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], defaults: Defaults) -> None:
        self.defaults = defaults
        self.created = int(time.time())
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.url = f"http://{host}:{self.server_port}"

    def offer(self, engine: EngineThread, name: str) -> None:
        """The model; who has connected before is answered from now on."""
        self.engine, self.name = engine, name

    def server_bind(self) -> None:
        """Without HTTPServer's look at the name service, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def end_with_engine(self) -> None:
        """Stop serving when the engine has died."""
        self.engine.died.wait()
        self.shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error of ours; anything else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class ClientLeft(OSError):
    """Nobody reads the answer any more."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ChatServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nanochat", ""
    disable_nagle_algorithm = True
    timeout = STALLED_S

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, respond: Any) -> None:
        try:
            self._check_who_asks()
            respond()
        except RequestError as error:
            self._json(error.status, error.body)

    def _check_who_asks(self) -> None:
        """No other site's page, and no foreign name that was pointed at this machine, may ask."""
        host = self.headers.get("host", "")
        if not loopback(urlsplit(f"//{host}").hostname or ""):
            self.close_connection = True
            raise RequestError(403, f"This page is not served under the name {host!r}.", "forbidden")
        origin = self.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            self.close_connection = True
            raise RequestError(403, f"Pages of {origin} may not ask here.", "forbidden")

    def _get(self) -> None:
        path = unquote(urlsplit(self.path).path)
        model = {
            "id": self.server.name, "object": "model", "created": self.server.created, "owned_by": "nanochat",
        }  # fmt: skip
        match path:
            case "/":
                self._page()
            case "/healthz":
                self._json(200, {"status": "ok", "model": self.server.name})
            case "/v1/models":
                self._json(200, {"object": "list", "data": [model]})
            case _ if path.startswith("/v1/models/"):
                self._check_model(path.removeprefix("/v1/models/"))
                self._json(200, model)
            case _:
                raise RequestError(404, f"There is nothing at {path}.", "not_found")

    def _post(self) -> None:
        body = self._body()
        if urlsplit(self.path).path != "/v1/chat/completions":
            raise RequestError(404, f"There is nothing to post to at {self.path}.", "not_found")
        request = parse(body)
        self._check_model(request.model)
        self._chat(request)

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or "transfer-encoding" in self.headers:
            self.close_connection = True
            raise RequestError(411, "Say how long the body is (Content-Length).", "length_required")
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise RequestError(413, f"The body has more than {MAX_BODY} bytes.", "too_large")
        return self.rfile.read(int(length))

    def _check_model(self, name: str | None) -> None:
        if name not in (None, "", "latest", self.server.name):
            text = f"The model {name!r} does not exist; here is {self.server.name!r}."
            raise RequestError(404, text, "model_not_found", "model")

    # ------------------------------------------------------------ answers

    def _chat(self, request: ChatRequest) -> None:
        from nanochat.engine_thread import EngineBusy, EngineDied

        died = RequestError(503, "The engine has died; see where chat_web runs.", "engine_died")
        try:
            answer = self.server.engine.ask(self.server.defaults.frame(request))
        except EngineBusy:
            text = f"{self.server.engine.most} requests run or wait already."
            raise RequestError(503, text, "overloaded") from None
        except EngineDied:
            raise died from None
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.server.name,
        }  # fmt: skip
        shapes = Shapes(head, request.include_usage)
        with answer:
            frames = self._frames(answer)
            try:
                first = next(frames)
                if first["op"] == "error":
                    raise RequestError(400, first["message"], first["code"], first["param"])
                shapes.accepted(first)
                if not request.stream:
                    self._whole(frames, shapes, request.n or 1)
                    return
            except EngineDied:
                raise died from None
            self._start_stream()
            try:
                for frame in frames:
                    self.wfile.write(b"".join(event(chunk) for chunk in shapes.chunks(frame)))
                if request.include_usage:
                    self.wfile.write(event(shapes.last_chunk()))
            except EngineDied:
                self.wfile.write(event(died.body))
            self.wfile.write(DONE)

    def _frames(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """What the engine says, as long as the client is there. Raises ClientLeft and EngineDied."""
        while not answer.over:
            if self._left():
                raise ClientLeft
            frame = answer.next(WATCH_S)
            if frame is not None:
                yield frame

    def _left(self) -> bool:
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)

    def _whole(self, frames: Iterator[dict[str, Any]], shapes: Shapes, choices: int) -> None:
        texts, reasons = [""] * choices, [""] * choices
        for frame in frames:
            if frame["op"] == "delta":
                texts[frame["index"]] += frame["text"]
            else:
                reasons[frame["index"]] = frame["reason"]
                shapes.count(frame)
        self._json(200, shapes.completion(texts, reasons))

    def _start_stream(self) -> None:
        """Headers of an event stream, which ends with the connection."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-store")
        self.send_header("connection", "close")
        self.end_headers()

    def _page(self) -> None:
        nonce = uuid.uuid4().hex
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        content = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce).encode()
        self._send(200, "text/html; charset=utf-8", content, {"content-security-policy": policy})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        more = {"retry-after": "2"} if status == 503 else {}
        self._send(status, "application/json", json.dumps(body, ensure_ascii=False).encode(), more)

    def _send(self, status: int, kind: str, content: bytes, more: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"content-type": kind, "content-length": str(len(content)), "cache-control": "no-store"}
        headers |= {"x-content-type-options": "nosniff", **more}
        if self.close_connection:
            headers["connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, in the same shape as our refusals."""
        del explain
        self.close_connection = True
        self._json(int(code), RequestError(int(code), message or HTTPStatus(code).phrase, "bad_request").body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told."""
