"""Names of models: what people type finds the checkpoint they mean, on both databases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.db import Database
from server.inference import catalog
from server.models import Pipeline
from server.settings import Settings
from tests.server.inference.conftest import insert


def find(settings: Settings, name: str) -> str | None:
    """The id of the checkpoint a name means."""

    async def ask() -> str | None:
        db = Database(settings.sqlalchemy_url)
        async with db.read() as session:
            found = await catalog.find(session, name)
        await db.close()
        return found.checkpoint_id if found else None

    return asyncio.run(ask())


def listed(settings: Settings) -> dict[str, str]:
    async def ask() -> dict[str, str]:
        db = Database(settings.sqlalchemy_url)
        async with db.read() as session:
            found = {model.name: model.checkpoint_id for model in await catalog.models(session)}
        await db.close()
        return found

    return asyncio.run(ask())


@pytest.fixture
def shelf(settings: Settings, tmp_path: Path) -> Settings:
    """Two runs with the same name, one of a pipeline, oldest first."""

    async def add() -> None:
        db = Database(settings.sqlalchemy_url)
        async with db.write() as session:
            session.add(Pipeline(id="p0000000001", name="my demo"))
        await db.close()

    asyncio.run(add())
    insert(settings, tmp_path, run="first try", stage="base", step=100, number=1)
    insert(settings, tmp_path, run="first try", stage="sft", step=20, number=2)
    insert(settings, tmp_path, run="first try", stage="sft", step=20, number=3)
    insert(settings, tmp_path, run="other", stage="mid", step=5, number=4, pipeline="p0000000001")
    insert(settings, tmp_path, run="v1.2_x", stage="base", step=3, number=5)
    return settings


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("latest", 3),  # the newest of the furthest stage
        ("first-try", 3),
        ("first try", 3),
        ("first-try:sft:20", 3),  # of equal names the newest
        ("first-try/sft/20", 3),
        ("first-try:base", 1),
        ("first-try:base:last", 1),
        ("first-try:base/latest", 1),
        ("my-demo", 4),
        ("v1.2_x:base:3", 5),
        ("c0000000002", 2),
    ],
)
def test_a_name_finds_its_checkpoint(shelf: Settings, name: str, number: int) -> None:
    assert find(shelf, name) == f"c{number:010d}"


@pytest.mark.parametrize(
    "name",
    ["", "nobody", "first-try:rl", "first-try:base:101", "first-try:base:-1", "first-try:base:1e2", "a:b:c:d",
     "first_try", "first%", "c0000000009", "a\0b", "first-try:sft:" + "9" * 40, "x" * 256],
)  # fmt: skip
def test_other_names_find_nothing(shelf: Settings, name: str) -> None:
    assert find(shelf, name) is None


def test_every_listed_name_finds_what_the_list_says(shelf: Settings) -> None:
    names = listed(shelf)
    assert list(names) == [
        "latest", "my-demo", "v1.2_x:base:3", "other:mid:5", "first-try:sft:20", "first-try:base:100",
    ]  # fmt: skip
    assert {name: find(shelf, name) for name in names} == names
