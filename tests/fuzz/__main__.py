"""Runs targets under atheris (libFuzzer): see the package. Ends with 1 when a promise was broken."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import TARGETS, cases, load

BUILD = Path(__file__).resolve().parent.parent.parent / "build" / "fuzz"
TIMEOUT_S = 20  # for one input; machines are busy
RSS_MB = 2048
WHERE = "fuzz: needs atheris, which has wheels for Linux: .venv/bin/python -m pip install atheris==3.0.0"


def fuzz(name: str, minutes: float, corpus: Path) -> None:
    """Fuzz one target; leaves the process. New inputs stay in `corpus`, findings in build/fuzz/findings."""
    import atheris

    with atheris.instrument_imports(include=["nanochat", "server"]):
        target = load(name)
    place = BUILD / name
    seeds, findings, words = place / "seeds", BUILD / "findings", place / "words.dict"
    for directory in (corpus, seeds, findings):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (seeds / f"{number:04}").write_bytes(data)
    for case in cases(name):
        (seeds / case.name).write_bytes(case.read_bytes())
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in dict.fromkeys(target.words)))
    mutator = None
    if target.is_json:
        from tests.fuzz.mutate import json_mutator

        mutator = json_mutator(target.words, lambda data, size: atheris.Mutate(data, size))
    arguments = [
        sys.argv[0], f"-max_total_time={round(minutes * 60)}", f"-max_len={target.max_bytes}",
        f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={RSS_MB}", f"-dict={words}", "-print_final_stats=1",
        f"-artifact_prefix={findings}/{name}-", str(corpus), str(seeds),
    ]  # fmt: skip
    atheris.Setup(arguments, target.one, **({"custom_mutator": mutator} if mutator else {}))
    atheris.Fuzz()


def _quoted(word: str) -> str:
    """A word as libFuzzer's dictionaries have it."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\')
    return "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in word.encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all when none is named"
    )
    parser.add_argument("--minutes", type=float, default=10, help="of each target")
    parser.add_argument("--corpus", type=Path, help="where new inputs are kept (build/fuzz/TARGET/corpus)")
    parser.add_argument("--case", type=Path, help="run this input alone, without atheris")
    given = parser.parse_args()
    if unknown := [name for name in given.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    names = given.targets or [*TARGETS]
    if len(names) > 1 and (given.corpus or given.case):
        parser.error("--corpus and --case are for one target")
    if given.case:
        load(names[0]).one(given.case.read_bytes())
        return 0
    if find_spec("atheris") is None:
        print(WHERE, file=sys.stderr)
        return 2
    if len(names) == 1:
        fuzz(names[0], given.minutes, given.corpus or BUILD / names[0] / "corpus")
    broken = []
    for name in names:  # each in a process of its own: libFuzzer ends it
        print(f"fuzz: {name}: {TARGETS[name]}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, f"--minutes={given.minutes}"]
        if subprocess.run(command, check=False).returncode:
            broken.append(name)
    print(f"fuzz: broken: {', '.join(broken)}" if broken else "fuzz: every promise held")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
