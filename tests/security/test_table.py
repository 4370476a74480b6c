"""docs/security.md names tests, and they exist."""

from __future__ import annotations

import re

from nanochat.paths import repo_dir


def test_every_test_that_the_promises_name_exists() -> None:
    text = (repo_dir() / "docs" / "security.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (repo_dir() / "tests" / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) > 15 and all("::test_" in row for row in rows)
