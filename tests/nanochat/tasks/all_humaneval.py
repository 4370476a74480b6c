"""All of HumanEval in the sandbox: every solution of its authors' must pass, every empty body must fail.

python -m tests.nanochat.tasks.all_humaneval          (needs the data: `nanochat data list`)
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

from nanochat.paths import base_dir
from nanochat.sandbox.programs import protection, run
from nanochat.tasks import Example
from nanochat.tasks.humaneval import LIMITS, HumanEval, program


def report(title: str, examples: Sequence[Example], answers: Sequence[str]) -> int:
    """Judge the answers, print how many passed and how long it took; returns how many passed."""
    began, used = time.monotonic(), _processor()
    results = run([program(e, answer) for e, answer in zip(examples, answers, strict=True)], LIMITS)
    took, worked = time.monotonic() - began, _processor() - used
    passed = sum(result.passed for result in results)
    slowest = max(result.seconds for result in results)
    print(f"{title}: {passed} of {len(results)} pass")
    print(f"  {took:.1f} s, {worked:.1f} s of CPU; the slowest took {slowest:.2f} s")
    return passed


def _processor() -> float:
    """Seconds of CPU of this process's children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    examples = list(HumanEval("test", base_dir()))
    print(f"walls: {', '.join(protection())}")
    solved = report("solutions", examples, [str(example.answer) for example in examples])
    empty = report("empty bodies", examples, ["    pass"] * len(examples))
    return 0 if (solved, empty) == (len(examples), 0) else 1


if __name__ == "__main__":
    raise SystemExit(main())
