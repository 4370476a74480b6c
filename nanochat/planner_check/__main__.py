"""`python -m nanochat.planner_check fake | measured | field`: the tables of docs/planner.md."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nanochat.planner import Setting, peak_memory
from nanochat.planner.original import FIELD, FIELD_BYTES, original_memory

HEAD = "| d | V | T | B | type | how | {} | planned | off by |\n|---|---|---|---|---|---|---|---|---|"


def line(s: Setting, found_bytes: int, planned_bytes: int) -> str:
    """One row: sizes, bytes found and planned in MiB, and the difference."""
    how = ["compiled" if s.compiled else "eager"]
    how += ["recomputing"] * s.activation_checkpoint + ["modern"] * s.value_embeddings
    how += [f"{s.ranks} ranks"] * (s.ranks > 1)
    cells = [s.depth, s.vocab_size, s.seq_len, s.device_batch_size, s.dtype, ", ".join(how)]
    cells += [f"{size / 2**20:,.0f}" for size in (found_bytes, planned_bytes)]
    return f"| {' | '.join(str(cell) for cell in cells)} | {planned_bytes / found_bytes - 1:+.1%} |"


def fake() -> Iterator[str]:
    from nanochat.planner_check.fake import SETTINGS, tracked_peak

    yield HEAD.format("tracked MiB")
    for s in SETTINGS:
        yield line(s, tracked_peak(s), peak_memory(s).total)


def measured(home: Path) -> Iterator[str]:
    from nanochat.planner_check.measured import LARGE, SMALL, measured_peak, prepare

    groups = {
        "tensors of 32 MiB and more": LARGE,
        "smaller tensors": SMALL,
        "smaller tensors, MALLOC_MMAP_THRESHOLD_=131072": [replace(s, tight=True) for s in SMALL],
    }
    for title, settings in groups.items():
        yield f"\n{title}\n\n{HEAD.format('RSS MiB')}"
        for s in settings:
            prepare(home, s.vocab_size)
            yield line(s, measured_peak(s, home), peak_memory(s).total)


def field() -> Iterator[str]:
    from nanochat.planner_check.fake import tracked_plain_loss

    memory = original_memory(FIELD)
    yield "| part | GiB |\n|---|---|"
    for part, size in memory.to_dict().items():
        yield f"| {part} | {size / 2**30:.2f} |"
    yield f"| known | {FIELD_BYTES / 2**30:.2f} ({memory.total / FIELD_BYTES - 1:+.1%}) |"
    yield f"| loss, tracked on fake tensors | {tracked_plain_loss(FIELD) / 2**30:.2f} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nanochat.planner_check", description=(__doc__ or "").strip()
    )
    parser.add_argument("what", choices=("fake", "measured", "field"))
    parser.add_argument("--home", default="", help="keep tokenizers and kernels here between calls")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nanochat-planner-") as temporary:
        home = Path(given.home or temporary)
        home.mkdir(parents=True, exist_ok=True)
        lines = {"fake": fake, "measured": lambda: measured(home), "field": field}[given.what]
        for text in lines():
            print(text, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
