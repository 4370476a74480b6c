"""The door of the sandbox: programs that a model wrote, each judged by tests, many at once.

    results = run([Program(code, tests="assert double(3) == 6", entry="double")])
    results[0].passed, results[0].reason

What a program meets (jail.py, kernel.py): no network, no other process or thread, no signal to anyone, no
write to any file, no environment, no open descriptor of its parent's, and of files only Python's standard
library and the system's libraries to read. CPU time, memory, output and wall-clock time are bounded. Two of
the kernel's means must take effect: seccomp, and namespaces or Landlock, better both; where they do not,
nothing is run and `Unprotected` is raised. There is no setting that lets programs out.

Not covered: a fault of the kernel or of the processor (about 60 system calls stay open), what can be learnt
from timing, and with Landlock alone whether a path exists and how large it is. The tests are trusted to
judge, though they run behind the same walls.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from nanochat.sandbox.jail import ENDED, REFUSED, WALLS

_ROOT = Path(__file__).resolve().parents[2]


class Unprotected(RuntimeError):
    """The machine does not allow enough walls."""


@dataclass(frozen=True)
class Program:
    """`code` defines the function `entry`; `tests` call it by that name and raise when it is wrong."""

    code: str
    tests: str
    entry: str
    setup: str = ""
    """Code that is run before the tests, beside them."""


@dataclass(frozen=True)
class Limits:
    """Of one program. `seconds` is wall-clock time from its start, and CPU time rounded up."""

    seconds: float = 5.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 64 << 10


@dataclass(frozen=True)
class Result:
    """`reason` is "" when the program passed; `output` what it printed, errors included."""

    passed: bool
    reason: str
    output: str
    seconds: float
    walls: tuple[str, ...] = ()
    """What locked it in; empty when the time was over before that was known."""


def run(
    programs: Sequence[Program],
    limits: Limits | None = None,
    at_once: int | None = None,
    walls: Sequence[str] = WALLS,
) -> list[Result]:
    """Judge `programs`, `at_once` (default: one per core) at a time, behind those of `walls` there are.

    Raises Unprotected when the machine does not allow enough of them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(at_once or cores or 1) as pool:
        return list(pool.map(lambda program: _judge(program, limits or Limits(), walls), programs))


@cache
def protection() -> tuple[str, ...]:
    """The walls that this machine allows, tried once. Raises Unprotected when they are not enough."""
    program = Program("def ready(): return 1", "assert ready() == 1", "ready")
    result = run([program], Limits(seconds=60))[0]
    if not result.passed:
        raise Unprotected(
            f"a program of one line did not pass in the sandbox: {result.reason} {result.output}"
        )
    return result.walls


def _judge(program: Program, limits: Limits, walls: Sequence[str]) -> Result:
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        with _children(program, limits, walls, output) as (child, tests):
            verdict = _verdict(tests, began + limits.seconds)
            if verdict is None:
                verdict = {"passed": False, "reason": f"no end within {limits.seconds:g} s", "walls": []}
            elif verdict["reason"] == ENDED:
                verdict["reason"] += _how(child)
        if verdict["reason"] == REFUSED:
            there = ", ".join(verdict["walls"]) or "neither"
            raise Unprotected(
                "programs that a model wrote are not run here: the kernel must let a process lock itself in "
                f"by seccomp and by user namespaces or Landlock, and this one allows {there}"
            )
        output.seek(0)
        printed = output.read().decode(errors="replace")
    took = time.monotonic() - began
    return Result(verdict["passed"], verdict["reason"], printed, took, tuple(verdict["walls"]))


def _verdict(tests: subprocess.Popen[bytes], deadline: float) -> dict[str, Any] | None:
    """What the tests say at their end; None when that is not before the deadline."""
    assert tests.stdout is not None
    ready = select.poll()
    ready.register(tests.stdout, select.POLLIN)
    said = b""
    while (left := deadline - time.monotonic()) > 0 and ready.poll(left * 1000):
        if not (part := os.read(tests.stdout.fileno(), 1 << 16)):
            return json.loads(said) if said else {"passed": False, "reason": "the tests ended", "walls": []}
        said += part
    return None


def _how(child: subprocess.Popen[bytes]) -> str:
    """How a program ended that the tests found gone."""
    try:
        status = child.wait(timeout=1)
    except subprocess.TimeoutExpired:  # it only closed its end of the pipe
        return ""
    return f" (signal {signal.Signals(-status).name})" if status < 0 else f" (exit status {status})"


@contextmanager
def _children(
    program: Program, limits: Limits, walls: Sequence[str], output: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """The program and its tests, with a pipe each way between them. Both are gone at the end."""
    common = {
        "walls": list(walls),
        "limits": {
            "cpu_seconds": math.ceil(limits.seconds) + 1,
            "memory_bytes": limits.memory_bytes,
            "output_bytes": limits.output_bytes,
        },
        "entry": program.entry,
        "parent": os.getpid(),
    }
    calls, answers = os.pipe(), os.pipe()
    started: list[subprocess.Popen[bytes]] = []
    try:
        child = _start("program", (calls[0], answers[1]), {**common, "code": program.code}, output, output)
        started.append(child)
        request = {**common, "setup": program.setup, "tests": program.tests}
        tests = _start("tests", (answers[0], calls[1]), request, subprocess.PIPE, subprocess.DEVNULL)
        started.append(tests)
        for end in (*calls, *answers):
            os.close(end)
        calls = answers = (-1, -1)
        yield child, tests
    finally:
        for end in (*calls, *answers):
            if end >= 0:
                os.close(end)
        for process in started:
            with process:
                process.kill()


def _start(
    role: str, ends: tuple[int, int], request: dict[str, Any], out: int | IO[bytes], errors: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    # -S -s -P: the standard library only. -u: a program is killed with what it has not flushed yet.
    # A fixed hash seed: the same program gets the same verdict.
    argv = [sys.executable, "-SsPBu", "-m", "nanochat.sandbox.jail", role, *map(str, ends)]
    environ = {"PYTHONPATH": str(_ROOT), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
    with tempfile.TemporaryFile() as given:
        given.write(json.dumps(request).encode())
        given.seek(0)
        return subprocess.Popen(
            argv,
            stdin=given,
            stdout=out,
            stderr=errors,
            env=environ,
            cwd="/",
            pass_fds=ends,
            start_new_session=True,
        )
