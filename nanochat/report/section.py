"""One section of the report: what one run of a stage did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nanochat.report.scores import Score, table, table_markdown
from nanochat.stages import STAGES

#: metrics of trainings that tell how it went
TOLD = (
    "train/loss",
    "train/tokens",
    "train/tok_per_sec",
    "train/mfu",
    "train/skipped",
    "reward/mean",
    "reward/pass@1",
)
TOLD_PREFIXES = ("val/", "core/", "tokenizer/", "tok_eval/")
NOT_SETTINGS = ("run", "resume_from", "model_tag")
#: (stage, stage of the model measured) → file name; those of upstream where it has one
SLUGS = {
    ("tokenizer", ""): "tokenizer-training",
    ("tok_eval", ""): "tokenizer-evaluation",
    ("base", ""): "base-model-training",
    ("base_loss", "base"): "base-model-loss",
    ("base_eval", "base"): "base-model-evaluation",
    ("chat_eval", "base"): "chat-evaluation-base",
    ("mid", ""): "midtraining",
    ("base_loss", "mid"): "loss-mid",
    ("base_eval", "mid"): "core-mid",
    ("chat_eval", "mid"): "chat-evaluation-mid",
    ("sft", ""): "chat-sft",
    ("base_loss", "sft"): "loss-sft",
    ("base_eval", "sft"): "core-sft",
    ("chat_eval", "sft"): "chat-evaluation-sft",
    ("rl", ""): "chat-rl",
    ("base_loss", "rl"): "loss-rl",
    ("base_eval", "rl"): "core-rl",
    ("chat_eval", "rl"): "chat-evaluation-rl",
}


@dataclass
class Section:
    """A run of `stage` that succeeded. `metrics`: (first, last) by name; the first may be unknown."""

    stage: str
    run: str = ""
    run_id: str = ""
    began: str = ""
    """UTC, RFC 3339."""
    seconds: float | None = None
    step: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, tuple[float | None, float]] = field(default_factory=dict)
    scores: list[Score] = field(default_factory=list)
    checkpoint: str = ""
    """What it made; of an evaluation: what it measured."""
    model: dict[str, Any] = field(default_factory=dict)
    peak_bytes: int | None = None
    warnings: list[str] = field(default_factory=list)
    code: dict[str, Any] = field(default_factory=dict)

    @property
    def of(self) -> str:
        """Stage of the model that was measured; empty for a stage that makes something itself."""
        if STAGES[self.stage].makes_checkpoints or self.stage == "tok_eval":
            return ""
        return self.scores[-1].stage if self.scores else ""

    @property
    def slug(self) -> str:
        """Name of its file, without the ending."""
        return SLUGS.get((self.stage, self.of), f"{self.stage}-{self.of or 'model'}".replace("_", "-"))

    @property
    def title(self) -> str:
        return STAGES[self.stage].title + (f" of {self.of}" if self.of else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Section:
        """Raises TypeError, KeyError or AttributeError for what `to_json` did not write."""
        scores = [
            Score(**{**one, "intervals": {k: (v[0], v[1]) for k, v in one["intervals"].items()}})
            for one in told["scores"]
        ]
        metrics = {name: (pair[0], pair[1]) for name, pair in told["metrics"].items()}
        return cls(**{**told, "scores": scores, "metrics": metrics})

    def markdown(self) -> str:
        """The section as it stands in the report."""
        lines = [f"## {self.title}", "", *(f"- {name}: {value}" for name, value in self.facts())]
        if self.metrics:
            lines += ["", "| metric | first | last |", "|---|---:|---:|"]
            lines += [
                f"| {name} | {'' if first is None else number(first)} | {number(last)} |"
                for name, (first, last) in self.metrics.items()
            ]
        for score in self.scores:
            lines += ["", *_score_lines(score)]
        if changed := self.changed_settings():
            lines += ["", "Settings that differ from the defaults:", ""]
            lines += [f"- `{name}`: {_code(value)}" for name, value in changed.items()]
        return "\n".join(lines) + "\n"

    def facts(self) -> list[tuple[str, str]]:
        """What is known about the run, for people."""
        found: list[tuple[str, str]] = []
        if self.run or self.run_id:
            found.append(("run", " ".join(part for part in (self.run, self.run_id) if part)))
        if self.began:
            took = f", {duration(self.seconds)}" if self.seconds is not None else ""
            found.append(("began", f"{self.began.replace('T', ' ')[:19]} UTC{took}"))
        if self.step is not None and STAGES[self.stage].makes_checkpoints and self.stage != "tokenizer":
            found.append(("steps", f"{self.step:,}"))
        if self.checkpoint:
            found.append(("checkpoint", f"`{self.checkpoint}`"))
        if params := self.model.get("params"):
            found.append(("parameters", f"{int(params):,}"))
        if self.peak_bytes:
            found.append(("peak memory of a rank", f"{self.peak_bytes / 2**30:.2f} GiB"))
        if code := code_text(self.code):
            found.append(("code", code))
        if self.warnings:
            found.append(("warnings", f"{len(self.warnings)}, the last: {_one_line(self.warnings[-1])}"))
        return found

    def changed_settings(self) -> dict[str, Any]:
        """Config fields whose value is not the default's."""
        fields = STAGES[self.stage].config.model_fields
        return {
            name: value
            for name, value in self.config.items()
            if name in fields and name not in NOT_SETTINGS and value != fields[name].default
        }


def is_told(metric: str) -> bool:
    """Whether a metric stands in the report."""
    return metric in TOLD or metric.startswith(TOLD_PREFIXES)


def order(section: Section) -> int:
    """Where a section stands in the report."""
    known = list(SLUGS)
    key = (section.stage, section.of)
    return known.index(key) if key in known else len(known)


def sampled_scores(sections: Iterable[Section]) -> list[Score]:
    """pass@1 that rl measured on held-out problems before its first step and after its last.

    The first is the parent's, so both models stand side by side in the table. No interval: the answers to
    one problem are not independent.
    """
    found = []
    for section in sections:
        first, last = section.metrics.get("val/pass@1", (None, None))
        if section.stage != "rl" or last is None:
            continue
        task = "rl's tasks: pass@1, sampled"
        parent = "mid" if "mid_checkpoints" in str(section.config.get("sft_checkpoint", "")) else "sft"
        if first is not None:
            found.append(Score("rl", parent, {task: first}))
        found.append(Score("rl", "rl", {task: last}))
    return found


def all_scores(sections: Sequence[Section]) -> list[Score]:
    """Scores for the table: those of evaluations, and what trainings measured of themselves."""
    own = [score for section in sections for score in section.scores]
    if not any(score.family == "base_loss" and score.stage == "base" for score in own):
        bits = [s.metrics["val/bpb"][1] for s in sections if s.stage == "base" and "val/bpb" in s.metrics]
        own += [Score("base_loss", "base", {"val": value}) for value in bits[-1:]]
    return own + sampled_scores(sections)


def report_markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole report: the table first, then every section in the order of the pipeline."""
    ordered = sorted(sections, key=order)
    parts = [f"# {title}\n", table_markdown(table(all_scores(ordered))), *(s.markdown() for s in ordered)]
    return "\n".join(parts)


def _score_lines(score: Score) -> list[str]:
    of = f" `{score.checkpoint}`" if score.checkpoint else ""
    lines = [f"`{score.name}`{of}", ""]
    if score.family == "base_loss":
        lines += ["| split | bits per byte | tokens |", "|---|---:|---:|"]
        lines += [f"| {k} | {v:.4f} | {score.counts.get(k, 0):,} |" for k, v in score.values.items()]
    elif score.family == "tok_eval":
        lines += ["| text | bytes per token |", "|---|---:|"]
        lines += [f"| {k} | {v:.3f} |" for k, v in score.values.items()]
    else:
        lines += ["| task | accuracy | 95 % interval | problems |", "|---|---:|---:|---:|"]
        for task, value in score.values.items():
            low, high = score.intervals.get(task, (None, None))
            between = "" if low is None or high is None else f"{100 * low:.1f} … {100 * high:.1f} %"
            lines.append(f"| {task} | {100 * value:.1f} % | {between} | {score.counts.get(task, 0):,} |")
    lines += [f"| **{title}** | {value:.4f} | | |" for title, value in score.totals.items()]
    return lines


def code_text(code: dict[str, Any]) -> str:
    """Version and commit in a few words."""
    commit = str(code.get("commit") or "")[:12]
    parts = [
        str(code.get("version") or ""),
        commit and f"commit {commit}",
        code.get("changed") and "with changes",
    ]
    return ", ".join(str(part) for part in parts if part)


def number(value: float) -> str:
    """Four digits behind the point, thousands in groups: as many as matter."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4f}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def _code(value: Any) -> str:
    return f"`{_one_line(str(value))}`"


def _one_line(text: str) -> str:
    """What others wrote must not become part of the report's own structure."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")[:300]
