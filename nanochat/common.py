"""What every training script shares: ranks, device, compute type, seeds, events, logs, a clean end.

`setup_training()` works as a plain call (clean-up at exit) or as a context manager. Nothing is
distributed unless torchrun has set RANK. Not covered: hosts that do not share the base directory, MPS.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.configurator import ConfigError
from nanochat.events import EventLog
from nanochat.failures import write_failure
from nanochat.hardware import cpu_has_bfloat16
from nanochat.logs import LogTee
from nanochat.paths import base_dir
from nanochat.report.recorder import Recorder
from nanochat.stages import Problem, StageConfig
from nanochat.trackers import Nothing, Tracker

T = TypeVar("T")
COLLECTIVE_TIMEOUT = timedelta(minutes=10)


class World:
    """The ranks that train together, and what one of them needs to know."""

    def __init__(self, config: StageConfig, name: str) -> None:
        environ = os.environ
        self.rank = int(environ.get("RANK", "0"))
        self.size = int(environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(environ.get("LOCAL_RANK", "0"))
        self.local_size = int(environ.get("LOCAL_WORLD_SIZE", "1"))
        self.base = base_dir()
        self.run_id = environ.get("NANOCHAT_RUN_ID", "")
        place = environ.get("NANOCHAT_ATTEMPT_DIR", "")
        self.attempt_dir = Path(place) if place else None
        self.started = time.monotonic()
        self.stop = False
        self._closed = False
        self._failed = False
        self._handlers: dict[int, Any] = {}
        self._tee: LogTee | None = None
        self._tracker: Tracker = Nothing()
        self._hook = self._before = sys.excepthook
        self.device = resolve_device(config.device, self.local_rank)
        self.dtype = resolve_dtype(config.dtype, self.device)
        if self.is_master:
            self._tee = LogTee.open(self.base, name, self.attempt_dir)
        self.events = EventLog(
            self.attempt_dir / "events.jsonl" if self.attempt_dir and self.is_master else None
        )
        if self.is_master:
            self.events.on_event = Recorder(config, self.base, self.run_id).take

    @property
    def is_master(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print on rank 0 only."""
        if self.is_master:
            print(text, flush=True)

    def warn(self, text: str, step: int | None = None) -> None:
        """A warning on rank 0: in the log and among the events."""
        self.say(f"warning: {text}")
        self.events.emit("warning", message=text, **({} if step is None else {"step": step}))

    def track(self, tracker: Tracker) -> None:
        """Hand every metric event to `tracker` too, until the end."""
        self._tracker = tracker
        self.events.on_metric = tracker.log

    def phase(self, phase: str, step: int = 0, **fields: Any) -> None:
        self.events.emit("phase", phase=phase, step=step, **fields)

    # ------------------------------------------------------------ between ranks

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def agree(self, value: T) -> T:
        """Rank 0's value on every rank: "the newest" may be another one a moment later."""
        choices: list[T] = self.gather(value)
        return choices[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def sum_tensor(self, values: Tensor) -> list[float]:
        """The values of a float64 tensor summed over the ranks: one collective, one wait for the GPU."""
        if self.size > 1:
            dist.all_reduce(values)
        result: list[float] = values.tolist()
        return result

    # ------------------------------------------------------------ memory and time

    def peak_bytes(self) -> int:
        """Most memory used so far by this rank: of the GPU, else resident in RAM."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_rss()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # ------------------------------------------------------------ life

    def open(self, seed: int) -> None:
        """Threads, seeds, process group, signal handlers."""
        threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, cores() // self.local_size))
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        torch.set_float32_matmul_precision("high")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if "RANK" in os.environ and not dist.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            device_id = self.device if self.device.type == "cuda" else None
            dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, device_id=device_id)
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not in the main thread: whoever runs us there handles signals
                break

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop = True
        if self.is_master:
            print(f"{signal.Signals(number).name}: saving after this step, then leaving", flush=True)

    def fail(self, error: BaseException) -> None:
        """Record why this rank fails; the first rank to do so is believed."""
        if self._failed:
            return
        self._failed = True
        if self.attempt_dir is not None:
            write_failure(self.attempt_dir, error)

    def close(self) -> None:
        """Leave the process group, close files, give signals back. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if sys.excepthook == self._hook:
            sys.excepthook = self._before
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        # after a failure the others may never arrive; leaving without a goodbye ends them too
        if dist.is_initialized() and not self._failed:
            dist.barrier()  # the first to leave takes the store with it
            dist.destroy_process_group()
        self._tracker.close()
        self.events.close()
        if self._tee is not None:
            self._tee.close()

    def close_at_exit(self) -> None:
        """For the plain call: what `with` would do, at the end of the process."""

        def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self.fail(error)
            self._before(kind, error, trace)

        self._hook, self._before = hook, sys.excepthook
        sys.excepthook = hook
        atexit.register(self.close)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not (isinstance(error, SystemExit) and not error.code):
            if not isinstance(error, SystemExit):
                prefix = f"rank {self.rank}: " if self.size > 1 else ""
                print(f"{prefix}{''.join(traceback.format_exception(error))}", file=sys.stderr, flush=True)
            self.fail(error)
        self.close()
        if self.size > 1 and not isinstance(error, SystemExit):
            # no clean-up by the interpreter: after a failure it could wait for collectives that never
            # finish, after success one of gloo's threads may still run, and that aborts the process
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0 if error is None else 1)


def setup_training(config: StageConfig | None = None, *, name: str = "") -> World:
    """Make this process a rank: device, compute type, seeds, process group, logs, signal handlers.

    Without a config the defaults of every stage hold (seed 42, device and dtype auto). `name` goes
    into the log's file name when the config has no `run`. As a context manager it ends the process
    when it is left by one of several ranks: put nothing after it.
    """
    config = config or StageConfig()
    try:
        world = World(config, config.run or name or Path(sys.argv[0]).stem or "run")
        world.open(config.seed)
    except Exception as error:
        if place := os.environ.get("NANOCHAT_ATTEMPT_DIR"):
            write_failure(Path(place), error)
        raise
    world.close_at_exit()
    return world


def resolve_device(wanted: str, local_rank: int) -> torch.device:
    """The device of this rank. Raises ConfigError when `cuda` is asked for and there is none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            [Problem("/device", "device is cuda, but torch finds no NVIDIA GPU; use cpu", "cpu")]
        )
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            [
                Problem(
                    "/device",
                    f"rank {local_rank} has no GPU: {torch.cuda.device_count()} visible; start fewer ranks",
                )
            ]
        )
    return torch.device("cuda", local_rank)


def resolve_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Compute type: the config's, else NANOCHAT_DTYPE's, else bfloat16 where it is faster."""
    name = wanted if wanted != "auto" else os.environ.get("NANOCHAT_DTYPE", "") or "auto"
    if name == "auto":
        name = "bfloat16" if has_bfloat16(device) else "float32"
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise ConfigError([Problem("/dtype", f"NANOCHAT_DTYPE={name!r}: use float32 or bfloat16", "float32")])
    return known[name]


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32: sm_80 and later, some CPUs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return cpu_has_bfloat16()


def peak_rss() -> int:
    """Most bytes this program was resident with.

    Not getrusage's: that begins with the peak of whoever started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
