"""Text generation: a scheduler, model runners, and a process that serves one model over a socket."""

from nanochat.engine.engine import Engine, Output, Request
from nanochat.engine.make import Options, generate_batch, make_engine

__all__ = ["Engine", "Options", "Output", "Request", "generate_batch", "make_engine"]
