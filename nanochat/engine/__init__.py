"""Text generation: a scheduler, a model runner, and a process that serves one model over a socket."""

from nanochat.engine.engine import Engine, Output, Request, generate_batch

__all__ = ["Engine", "Output", "Request", "generate_batch"]
