"""Huge pages for what torch allocates on a CPU. Torch-free.

glibc asks the kernel for them when GLIBC_TUNABLES says so at the start of a process; training steps of small
models are 12 % faster then, for the same memory (LOG 2026-11-24). Not covered: other C libraries and kernels
that give none; both ignore the setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

VARIABLE, NAME = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def with_huge_pages(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the setting added; a choice of the user's own stays."""
    given = environ.get(VARIABLE, "")
    if NAME in given:
        return dict(environ)
    return {**environ, VARIABLE: ":".join(filter(None, (given, f"{NAME}=1")))}


def start_again_with_huge_pages() -> None:
    """Replace this process by the same program with the setting, before it has done anything.

    The process id stays. Does nothing where the setting is there already, or is of no use.
    """
    environ = with_huge_pages(os.environ)
    if sys.platform == "linux" and environ != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
