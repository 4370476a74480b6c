"""The child of the sandbox. It locks itself in, then runs a program that a model wrote, or the tests of one.

    python -m nanochat.sandbox.jail program|tests READ WRITE < request      (READ, WRITE: open descriptors)

Program and tests are two processes, each behind the same walls. The tests call the program's function through
two pipes: one line of JSON there, one back. So a program can only answer calls. Whether it passed is said by
the other process, on a pipe that the program does not have: leaving early, printing, an object that claims to
equal everything, or a search through the interpreter's memory win nothing.

Covered: numbers, strings, None, lists, tuples, sets, dicts and what is made of them, as arguments and values.
Not covered: other objects, calls back, a change that the program makes to an argument (it gets a copy).
"""

from __future__ import annotations

import builtins
import io
import json
import os
import resource
import sys
from types import ModuleType
from typing import Any, BinaryIO

from nanochat.sandbox import kernel

WALLS = ("namespaces", "landlock", "seccomp")
REFUSED, ENDED = "refused", "the program ended"
MAX_LINE = 1 << 20
"""Bytes of one call or one answer."""


class ProgramEnded(BaseException):
    """The program is gone; tests that catch every Exception do not catch this."""


def main() -> None:
    role, read, write = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    request = json.load(sys.stdin)
    with os.fdopen(read, "rb") as received, os.fdopen(write, "wb") as sent:
        walls = lock_in(request["walls"], request["limits"])
        if os.getppid() != request["parent"]:  # it ended before this process asked to end with it
            return
        if role == "tests":
            judge(request, walls, received, sent)
        elif enough(walls):
            serve(request, received, sent)


def enough(walls: list[str]) -> bool:
    """seccomp keeps from network and processes, either of the other two from files."""
    return "seccomp" in walls and len(walls) > 1


def lock_in(wanted: list[str], limits: dict[str, int]) -> list[str]:
    """Lock this process in with those walls of `wanted` that the kernel allows, and say which took effect."""
    readable = readable_paths()
    walls = []
    if "namespaces" in wanted and kernel.namespaces(readable):
        walls.append("namespaces")
    set_limits(limits)
    kernel.no_new_privileges()
    kernel.drop_capabilities()
    kernel.die_with_parent()  # not earlier: a change of capabilities takes it back
    if "landlock" in wanted and kernel.landlock(readable):
        walls.append("landlock")
    if "seccomp" in wanted and kernel.seccomp():
        walls.append("seccomp")
    return walls


def set_limits(limits: dict[str, int]) -> None:
    """Seconds of CPU, bytes of memory and of output; no processes, no core dump, few descriptors."""
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["output_bytes"]),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def readable_paths() -> list[str]:
    """The standard library and what its compiled modules are linked with. None lies inside another."""
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    sys.path[:] = [path for path in sys.path if path != own and os.path.exists(path)]  # noqa: PTH110
    prefixes = [f"{sys.base_prefix}/lib", f"{sys.base_prefix}/{sys.platlibdir}"]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    found = sorted({path for path in [*sys.path, *prefixes, *system] if os.path.exists(path)})  # noqa: PTH110
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


# ---------------------------------------------------------------- the program


def serve(request: dict[str, Any], calls: BinaryIO, answers: BinaryIO) -> None:
    """Run the program, then answer calls of its function until the tests end."""
    module = ModuleType("program")
    sys.modules["program"] = module  # dataclasses and typing look there
    os.environ.clear()
    exec(compile(request["code"], "<program>", "exec"), module.__dict__)
    for line in calls:
        arguments, named = decode(json.loads(line))
        send(answers, answer(getattr(module, request["entry"]), arguments, named))


def answer(function: Any, arguments: list[Any], named: dict[str, Any]) -> list[Any]:
    try:
        return ["value", encode(function(*arguments, **named))]
    except Exception as error:
        return ["raised", type(error).__name__, str(error)[:200]]


def send(to: BinaryIO, data: Any) -> None:
    to.write(json.dumps(data).encode() + b"\n")
    to.flush()


# ---------------------------------------------------------------- the tests


def judge(request: dict[str, Any], walls: list[str], answers: BinaryIO, calls: BinaryIO) -> None:
    """Run the tests against the program and print one JSON object: walls, passed, reason."""
    verdict: dict[str, Any] = {"walls": walls, "passed": False, "reason": REFUSED}
    if enough(walls):
        out, sys.stdout = sys.stdout, io.StringIO()  # what tests print is no verdict
        verdict["reason"] = failure(request, answers, calls)
        verdict["passed"] = not verdict["reason"]
        sys.stdout = out
    print(json.dumps(verdict), flush=True)


def failure(request: dict[str, Any], answers: BinaryIO, calls: BinaryIO) -> str:
    """Why the program does not pass; "" when it does."""

    def remote(*arguments: Any, **named: Any) -> Any:
        try:
            send(calls, encode([list(arguments), named]))
            reply = answers.readline(MAX_LINE)
        except BrokenPipeError:
            reply = b""
        if not reply.endswith(b"\n"):
            raise ProgramEnded("the answer is too long" if reply else ENDED)
        return value_of(json.loads(reply))

    names: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(request["setup"], "<setup>", "exec"), names)
        names[request["entry"]] = remote
        exec(compile(request["tests"], "<tests>", "exec"), names)
    except ProgramEnded as end:
        return str(end)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    return ""


def value_of(reply: list[Any]) -> Any:
    """The value of an answer; raises what the call raised."""
    if reply[0] == "value":
        return decode(reply[1])
    kind = getattr(builtins, reply[1], RuntimeError)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = RuntimeError
    raise kind(reply[2])


# ---------------------------------------------------------------- values on the way

_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}


def encode(value: Any) -> Any:
    """`value` as JSON that keeps its types: a container is [its kind, [items]]. Raises TypeError."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for name, kind in _CONTAINERS.items():
        if isinstance(value, kind):
            items = value.items() if isinstance(value, dict) else value
            return [name, [encode(item) for item in items]]
    raise TypeError(f"a {type(value).__name__} cannot be handed to the tests")


def decode(data: Any) -> Any:
    if not isinstance(data, list):
        return data
    name, items = data
    return _CONTAINERS[name](decode(item) for item in items)


if __name__ == "__main__":
    main()
