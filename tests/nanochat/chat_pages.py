"""A chat page in this process, with a tiny model that never ends by itself and an engine to look into."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from nanochat.chat_web import ChatServer, Defaults, parser
from nanochat.engine import Engine
from nanochat.engine_thread import EngineThread
from tests.nanochat.engine import tiny

NAME = "d1:sft:3"
CONTEXT = 128


@dataclass
class Page:
    url: str
    server: ChatServer
    engine: Engine
    thread: EngineThread


@contextlib.contextmanager
def chat_page(context: int = CONTEXT, lanes: int = 4, most: int = 8, *flags: str) -> Iterator[Page]:
    """Serves until the block ends; `flags` as on the command line."""
    engine = tiny.engine(lanes, tiny.without_specials(tiny.tiny_model(context=context)))
    thread = EngineThread(engine, most)
    server = ChatServer(("127.0.0.1", 0), Defaults(parser().parse_args(flags)))
    server.offer(thread, NAME)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    try:
        yield Page(server.url, server, engine, thread)
    finally:
        server.shutdown()
        server.server_close()
        thread.close()
