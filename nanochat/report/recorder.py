"""Listens to a run's events and writes its section of the report at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nanochat.lineage import code_version
from nanochat.report.scores import score_of
from nanochat.report.section import Section, is_told
from nanochat.stages import STAGES, StageConfig

KEPT_WARNINGS = 20


class Recorder:
    """One run's section in the making. Rank 0 only; a report that cannot be written stops no training.

    Not covered: what an earlier attempt of a resumed run measured; the service's report has that too.
    """

    def __init__(self, config: StageConfig, base: Path, run_id: str = "") -> None:
        stage = next((stage.name for stage in STAGES.values() if stage.config is type(config)), None)
        self._directory = base / "report"
        self._started = time.monotonic()
        self.section = stage and Section(
            stage,
            run=config.run,
            run_id=run_id,
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config.model_dump(mode="json"),
        )

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One event; at a successful `end` the section is written."""
        section = self.section
        if not section:
            return
        match kind:
            case "metric":
                for name, value in fields["values"].items():
                    if is_told(name):
                        first = section.metrics.get(name, (value, value))[0]
                        section.metrics[name] = (first, value)
            case "eval":
                score = score_of(fields, section.stage)
                section.scores = [old for old in section.scores if old.name != score.name] + [score]
                section.checkpoint = score.checkpoint or section.checkpoint
            case "checkpoint" if not fields.get("removed"):
                section.checkpoint, section.model = fields["path"], dict(fields.get("model") or {})
            case "warning":
                section.warnings = [*section.warnings, str(fields["message"])][-KEPT_WARNINGS:]
            case "end" if fields["status"] == "succeeded":
                section.step, section.peak_bytes = fields["step"], fields["peak_bytes"]
                section.seconds = round(time.monotonic() - self._started, 1)
                section.code = code_version()
                with suppress(OSError):
                    write(section, self._directory)


def write(section: Section, directory: Path) -> Path:
    """`<slug>.md` and `<slug>.json` in `directory`; those of an earlier run are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    text = {".md": section.markdown(), ".json": json.dumps(section.to_json(), indent=1, ensure_ascii=False)}
    for suffix, content in text.items():
        fresh = directory / f".{section.slug}{suffix}.{os.getpid()}"
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(directory / f"{section.slug}{suffix}")
    return directory / f"{section.slug}.md"
