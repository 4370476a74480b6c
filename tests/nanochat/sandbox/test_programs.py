"""Verdicts: what passes, that it cannot be claimed, and that limits end what does not end by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nanochat.sandbox import programs
from nanochat.sandbox.jail import ENDED, WALLS
from nanochat.sandbox.programs import Limits, Program, Result, Unprotected, protection, run

DOUBLE = "assert double(3) == 6\nassert double('ab') == 'abab'"
RIGHT = "def double(x):\n    return x + x"


@pytest.fixture(scope="module", autouse=True)
def _walls() -> None:
    try:
        protection()
    except Unprotected as error:
        pytest.skip(str(error))


def judged(*codes: str, tests: str = DOUBLE, limits: Limits | None = None) -> list[Result]:
    return run([Program(code, tests, "double") for code in codes], limits)


def test_verdicts_come_in_order() -> None:
    results = judged(RIGHT, "def double(x):\n    return x", RIGHT, "double = 3", "def double(x:", "")
    assert [result.passed for result in results] == [True, False, True, False, False, False]
    assert [result.reason for result in results[:3]] == ["", "AssertionError", ""]
    assert results[3].reason == "TypeError: 'int' object is not callable"
    assert results[4].reason == f"{ENDED} (exit status 1)"
    assert "SyntaxError" in results[4].output
    assert "no attribute 'double'" in results[5].output


def test_values_and_errors_keep_their_types() -> None:
    code = "def double(x, *, raises=''):\n    if raises: return [][1]\n    return x"
    nested = [1, (2, [3.0]), {"a": {(1, 2): [None]}, 3: set()}]
    values = [None, True, 1, -(10**40), 0.1, 1e300, "ä\ud800\n", [], (), {1, 2}, frozenset("a"), nested]
    same = f"for value in {values!r} + [float('inf')]:\n    assert repr(double(value)) == repr(value)"
    error = (
        "try: double(1, raises='yes')\nexcept IndexError as e: assert 'range' in str(e)\nelse: assert False"
    )
    subclasses = (
        "import collections, enum\n"
        "def double(x):\n"
        "    E = enum.IntEnum('E', 'A B')\n"
        "    counted = collections.Counter('aab')\n"
        "    return [counted, collections.OrderedDict(a=1), E.B, collections.deque([1])][x]"
    )
    equal = "assert [double(0), double(1), double(2)] == [{'a': 2, 'b': 1}, {'a': 1}, 2]"
    for result in run([Program(code, f"{same}\n{error}", "double"), Program(subclasses, equal, "double")]):
        assert result.passed, result
    [other] = judged(subclasses, tests="double(3)")
    assert other.reason == "TypeError: a deque cannot be handed to the tests"


VERDICT = '{"passed": true, "reason": "", "walls": []}\n'
CLAIMS = {
    "leaves": "def double(x):\n    import os; os._exit(0)",
    "leaves early": "raise SystemExit(0)",
    "leaves by C": "import ctypes\nctypes.CDLL(None)._exit(0)",
    "speaks at exit": f"import atexit\natexit.register(print, {VERDICT!r})",
    "prints": f"print({VERDICT!r})\ndef double(x): return x",
    "writes everywhere": (
        "import os\n"
        "for fd in range(64):\n"
        f"    try: os.write(fd, {VERDICT!r}.encode())\n"
        "    except OSError: pass\n"
        "def double(x): return x"
    ),
    "equals everything": (
        "class Any(int):\n"
        "    def __eq__(self, other): return True\n"
        "    def __repr__(self): return '6'\n"
        "    __hash__ = None\n"
        "def double(x): return Any()"
    ),
    "patches the tests' words": (
        "import builtins, sys, json\n"
        "builtins.AssertionError = ZeroDivisionError\n"
        "json.dumps = lambda *a, **k: 'true'\n"
        "sys.modules['__main__'].judge = sys.modules['__main__'].failure = lambda *a: ''\n"
        "def double(x): return x"
    ),
    "looks into memory": (
        "import gc\n"
        "def double(x):\n"
        "    for found in gc.get_objects():\n"
        "        if isinstance(found, dict) and 'passed' in found: found['passed'] = True\n"
        "    return x"
    ),
    "answers in advance": (
        "import gc, io\n"
        "for found in gc.get_objects():\n"
        "    if isinstance(found, io.BufferedWriter):\n"
        '        try: found.write(b\'[]\\n["value"]\\n["raised", "SystemExit", 0]\\n\' * 99); found.flush()\n'
        "        except (OSError, ValueError): pass\n"
        "def double(x): return x"
    ),
    "raises the end": "def double(x):\n    raise GeneratorExit",
    "answers too deep": "def double(x):\n    y = []\n    for _ in range(900): y = [y]\n    return y",
    "answers too long": "def double(x):\n    return 'x' * (1 << 21)",
    "does not answer": "def double(x):\n    import os; os.closerange(3, 32); return x",
}


def test_passing_cannot_be_claimed() -> None:
    results = judged(*CLAIMS.values(), limits=Limits(seconds=10))
    assert {name for name, result in zip(CLAIMS, results, strict=True) if result.passed} == set()
    slow = {name for name, result in zip(CLAIMS, results, strict=True) if "no end" in result.reason}
    assert slow == set()


def test_tests_that_catch_everything_do_not_pass_a_dead_program() -> None:
    tests = "try: double(1)\nexcept Exception: pass"
    assert judged("def double(x):\n    import os; os._exit(0)", tests=tests)[0].reason.startswith(ENDED)


ENDLESS = {
    "loops": "while True: pass",
    "catches everything": (
        "def double(x):\n"
        "    while True:\n"
        "        try:\n"
        "            while True: pass\n"
        "        except BaseException: pass"
    ),
    "ignores signals": (
        "import signal\n"
        "for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, signal.SIG_IGN)\n"
        "while True: pass"
    ),
    "sleeps": "import time\ndef double(x):\n    time.sleep(1e6)",
    "counts in C": "def double(x):\n    return sum(range(10**18))",
    "never answers": "def double(x):\n    import select; select.select([], [], [])",
}


def test_the_clock_ends_what_does_not_end() -> None:
    limits = Limits(seconds=1)
    before = set(psutil.Process().children(recursive=True))  # of other tests
    for result in run([Program(code, DOUBLE, "double") for code in ENDLESS.values()], limits, at_once=6):
        assert not result.passed
        assert result.reason == "no end within 1 s"
        assert result.seconds < 20
    assert set(psutil.Process().children(recursive=True)) <= before


def test_processor_time_ends_it_when_nobody_watches() -> None:
    """The clock's wait is long here: the kernel has to do it."""
    [result] = judged("while True: pass", limits=Limits(seconds=0.1))
    assert not result.passed
    with subprocess.Popen(
        [sys.executable, "-c", "from nanochat.sandbox.jail import *\n"
         "set_limits({'cpu_seconds': 1, 'memory_bytes': 1 << 30, 'output_bytes': 1})\nwhile True: pass"]
    ) as alone:  # fmt: skip
        assert alone.wait(timeout=60) < 0


def test_memory_is_bounded() -> None:
    at_once = "def double(x):\n    return bytearray(10 << 30)"
    bit_by_bit = (
        "def double(x):\n"
        "    held = []\n"
        "    try:\n"
        "        while True: held.append(bytearray(b'x') * (1 << 20))\n"
        "    except MemoryError:\n"
        "        got = len(held); held.clear()\n"
        "        return got"
    )
    mapped = "import mmap\ndef double(x):\n    return len(mmap.mmap(-1, 10 << 30))"
    tests = "assert not (got := double(1)), got"
    results = judged(at_once, mapped, bit_by_bit, tests=tests, limits=Limits(seconds=30))
    assert results[0].reason == "MemoryError"
    assert "Cannot allocate memory" in results[1].reason
    assert 100 < int(results[2].reason.removeprefix("AssertionError: ")) <= 256


def test_what_was_printed_is_kept_however_the_program_ends() -> None:
    """Its process is killed as soon as the tests have said their verdict: nothing may wait for its exit."""
    code = "import sys\ndef double(x):\n    print('said', x)\n    print('to whom', file=sys.stderr)\n"
    ends = (
        "    return 2 * x",
        "    while True: pass",
        "    import os; os._exit(0)",
        "    import os; os.abort()",
    )
    for result in run([Program(code + end, DOUBLE, "double") for end in ends], Limits(seconds=2)):
        assert sorted(result.output.splitlines()[:2]) == ["said 3", "to whom"]


def test_output_is_bounded() -> None:
    endless = "def double(x):\n    while True: print('x' * 1000)"
    to_descriptors = "import os\ndef double(x):\n    while True: os.write(2, b'x' * 1000)"
    binary = RIGHT + "\nimport os\nos.write(1, bytes(range(256)))"
    limits = Limits(seconds=30, output_bytes=10_000)
    for result in judged(endless, to_descriptors, limits=limits):
        assert "File too large" in result.reason
        assert len(result.output) == 10_000
        assert result.seconds < 30
    assert judged(binary)[0].passed


@pytest.mark.parametrize(
    "walls", [(), ("seccomp",), ("namespaces",), ("namespaces", "landlock")], ids="+".join
)
def test_without_enough_walls_nothing_is_run(tmp_path: Path, walls: tuple[str, ...]) -> None:
    with pytest.raises(
        Unprotected, match=r"seccomp and by user namespaces or Landlock, and this one allows "
    ):
        run([Program(RIGHT, DOUBLE, "double")], walls=walls)
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')\nprint('ran')"
    request = {"walls": walls, "code": code, "entry": "double", "parent": os.getpid(), "limits": {
        "cpu_seconds": 9, "memory_bytes": 1 << 28, "output_bytes": 9999}}  # fmt: skip
    ends = os.pipe()
    done = subprocess.run(
        [sys.executable, "-m", "nanochat.sandbox.jail", "program", *map(str, ends)],
        input=json.dumps(request).encode(), capture_output=True, pass_fds=ends, timeout=60,
    )  # fmt: skip
    for end in ends:
        os.close(end)
    assert (done.returncode, done.stdout, marker.exists()) == (0, b"", False)


def test_children_end_with_their_parent() -> None:
    """A parent that is killed leaves no program behind, however long it sleeps."""
    code = (
        "from nanochat.sandbox.programs import *\n"
        "sleeps = Program('import time\\ndef f():\\n    time.sleep(1e6)', 'f()', 'f')\n"
        "run([sleeps], Limits(seconds=1e6))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    known = psutil.Process(parent.pid)
    try:
        while len(children := known.children()) < 2:
            assert parent.poll() is None
    finally:
        parent.kill()
        parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone), alive) == (2, [])


def test_protection_is_named() -> None:
    assert set(protection()) <= set(WALLS)
    assert "seccomp" in protection()
    assert judged(RIGHT)[0].walls == protection()
    assert programs.protection.cache_info().currsize == 1
