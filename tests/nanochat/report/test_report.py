"""Events become sections, sections become one report with a table of the models side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.events import EventLog
from nanochat.report import Score, Section, report_markdown, table, table_markdown
from nanochat.report.__main__ import main
from nanochat.report.recorder import Recorder
from nanochat.report.scores import score_of
from nanochat.stages import STAGES, StageConfig


def record(base: Path, stage: str, *events: tuple[str, dict[str, Any]], status: str = "succeeded") -> None:
    """A run of `stage` that says `events` and ends."""
    log = EventLog(None)
    config: StageConfig = STAGES[stage].config(run=f"my-{stage}")
    log.on_event = Recorder(config, base, "r1").take
    for kind, fields in events:
        log.emit(kind, **fields)  # type: ignore[arg-type]
    log.emit("end", step=9, status=status, peak_bytes=2**30)


def metric(step: int, **values: float) -> tuple[str, dict[str, Any]]:
    return "metric", {"step": step, "values": {k.replace("__", "/"): v for k, v in values.items()}}


def chat_eval(stage: str, spelling: float, name: str = "chat_eval") -> tuple[str, dict[str, Any]]:
    details = {"checkpoint": f"{stage}_checkpoints/d4/step_000009", "intervals": {"spelling": [0.1, 0.9]}}
    return "eval", {
        "step": 9, "name": name, "values": {"spelling": spelling}, "counts": {"spelling": 64},
        "details": details,
    }  # fmt: skip


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    return tmp_path


def test_stages_leave_sections_and_the_report_shows_the_models_side_by_side(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"path": "base_checkpoints/d4/step_000009", "model": {"params": 3407872}}
    record(base, "base", metric(1, train__loss=6.0), metric(9, train__loss=2.0, val__bpb=1.25),
           ("checkpoint", made))  # fmt: skip
    record(base, "chat_eval", chat_eval("mid", 0.25))
    record(base, "chat_eval", chat_eval("mid", 0.25, "chat_eval/before"), chat_eval("chatsft", 0.625))
    record(base, "rl", metric(0, **{"val/pass@1": 0.5}), metric(9, **{"val/pass@1": 0.75}))
    record(base, "chat_eval", chat_eval("chatrl", 0.75))
    assert main([]) == 0
    names = {file.name for file in (base / "report").glob("*.md")}
    assert names == {
        "base-model-training.md", "chat-evaluation-mid.md", "chat-evaluation-sft.md", "chat-rl.md",
        "chat-evaluation-rl.md", "report.md",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "| measure | BASE | MID | SFT | RL |" in printed
    assert "| bits per byte, val | 1.2500 | – | – | – |" in printed
    assert "| spelling (64 problems) | – | 25.0 % (10–90) | 62.5 % (10–90) | 75.0 % (10–90) |" in printed
    assert "| rl's tasks: pass@1, sampled | – | – | 50.0 % | 75.0 % |" in printed
    whole = (base / "report" / "report.md").read_text()
    assert (
        whole.index("## Pretraining") < whole.index("of mid") < whole.index("of sft") < whole.index("of rl")
    )
    assert "| train/loss | 6 | 2 |" in whole and "3,407,872" in whole and "my-base r1" in whole


def test_a_stage_that_did_not_succeed_leaves_no_section(base: Path) -> None:
    record(base, "base", metric(1, train__loss=6.0), status="stopped")
    assert not (base / "report").exists()
    assert main([]) == 1


def test_a_later_run_of_a_stage_replaces_its_section(base: Path) -> None:
    for spelling in (0.1, 0.9):
        record(base, "chat_eval", chat_eval("chatsft", spelling))
    told = json.loads((base / "report" / "chat-evaluation-sft.json").read_text())
    assert told["scores"][0]["values"] == {"spelling": 0.9}
    assert len(list((base / "report").glob("*.json"))) == 1


def test_reset_removes_what_is_ours_and_nothing_else(base: Path) -> None:
    record(base, "base", metric(1, train__loss=6.0))
    (base / "report" / "notes.md").write_text("mine")
    assert main([]) == 0 and main(["reset"]) == 0
    assert [file.name for file in (base / "report").iterdir()] == ["notes.md"]


def test_a_foreign_file_among_the_sections_is_named_and_left_out(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(base, "base", metric(1, train__loss=6.0))
    (base / "report" / "other.json").write_text('{"stage": "base", "scores": 3}')
    assert main(["--json"]) == 0
    assert "other.json is no section" in capsys.readouterr().err


def test_core_of_fewer_tasks_is_not_called_core() -> None:
    def scored(**core: float) -> Score:
        told = {key.replace("__", "/"): value for key, value in core.items()}
        return score_of({"name": "base_eval", "values": {"piqa": 0.6}, "details": {"core": told}}, "base")

    part = scored(core__partial=0.04, core__tasks=3.0)
    assert part.totals == {"CORE, 3 of its tasks": 0.04}
    assert scored(core__metric=0.2).totals == {"CORE": 0.2}
    assert [row.title for row in table([part])] == ["CORE, 3 of its tasks"]


def test_what_a_run_said_cannot_become_part_of_the_report(base: Path) -> None:
    section = Section("sft", config={"tasks": "a`|\n# Results\n"}, warnings=["x\n## Results\n"])
    text = report_markdown("t", [section])
    assert "\n# Results" not in text and "\n## Results" not in text


def test_every_section_survives_its_file() -> None:
    section = Section(
        "chat_eval", scores=[Score("chat_eval", "rl", {"a": 0.5}, {"a": 2}, {"a": (0.1, 0.9)})],
        metrics={"val/bpb": (None, 1.0)},
    )  # fmt: skip
    again = Section.from_json(json.loads(json.dumps(section.to_json())))
    assert again == section and again.slug == "chat-evaluation-rl"


def test_no_scores_make_a_sentence_not_an_empty_table() -> None:
    assert table_markdown([]) == "No evaluation has been run yet.\n"
