"""The page of files in a real browser: bring one, see what is wrong with one, lose the connection, delete."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanochat_client.types.keys import KeyCreate, Scope
from server.keys import local
from tests.server.fake_worker import post_run
from tests.server.files.uploads import GOOD, conversations, upload
from tests.services import Service
from tests.web import seed
from tests.web.conftest import DESKTOP, PHONE, Visitor
from tests.web.test_access import AXE, SERIOUS
from tests.web.test_pages import expect

DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  const zone = document.querySelector("input[type=file]").parentElement;
  for (const kind of ["dragover", "drop"])
    zone.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def here(tmp_path: Path) -> Callable[[str, bytes], str]:
    """Writes a file that can be chosen."""
    (tmp_path / "here").mkdir()

    def write(name: str, content: bytes) -> str:
        (tmp_path / "here" / name).write_bytes(content)
        return str(tmp_path / "here" / name)

    return write


def choose(page: Any, *paths: str) -> None:
    page.locator("input[type=file]").set_input_files(list(paths))


def stored(service: Service) -> dict[str, Any]:
    return {file["name"]: file for file in service.client.get("/files").json()["items"]}


def rows(page: Any, which: str) -> Any:
    return page.get_by_role("list", name=which).get_by_role("listitem")


def test_a_file_comes_is_used_in_a_run_and_goes(
    service: Service, host: seed.Host, visit: Any, here: Callable[[str, bytes], str]
) -> None:
    visitor = visit()
    page = visitor.open("/runs")
    page.get_by_role("navigation").get_by_role("link", name="Files").click()
    expect(page.get_by_text("No files yet.")).to_be_visible()
    content = conversations(2_000_000)
    choose(page, here("My Talk.jsonl", content))
    expect(rows(page, "Uploads")).to_contain_text("ready")
    row = rows(page, "On the service")
    expect(row).to_contain_text("files/conversations/my-talk.jsonl")
    expect(row).to_contain_text(f"{content.count(chr(10).encode()):,} conversations")
    file = stored(service)["my-talk.jsonl"]
    assert (service.settings.base_dir / file["path"]).read_bytes() == content
    row.get_by_role("link", name="Use in sft").click()
    expect(page.get_by_label("tasks", exact=True)).to_have_value(file["path"])
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url(re.compile("/ui/runs/r"))
    (run,) = service.client.get("/runs").json()["items"]
    assert (run["stage"], run["config"]["tasks"]) == ("sft", file["path"])

    page = visitor.open("/files")
    page.get_by_role("button", name="Delete my-talk.jsonl").click()
    page.get_by_role("button", name="Delete it for good").click()
    expect(page.get_by_role("alert")).to_contain_text(run["id"])  # a run needs it
    service.client.post(f"/runs/{run['id']}/cancel")
    page.get_by_role("button", name="Delete my-talk.jsonl").click()
    page.get_by_role("button", name="Delete it for good").click()
    expect(page.get_by_text("No files yet.")).to_be_visible()
    assert stored(service) == {}


def test_a_bad_file_is_told_its_line_and_a_dropped_one_is_taken_by_what_it_is(
    service: Service, visit: Any, here: Callable[[str, bytes], str]
) -> None:
    visitor = visit()
    page = visitor.open("/files")
    choose(page, here("broken.jsonl", GOOD + b"not json"), here("prose.txt", b"Some text.\n"))
    expect(page.get_by_role("alert")).to_contain_text("broken.jsonl, line 2: no JSON")
    expect(rows(page, "Uploads").filter(has_text="broken.jsonl")).to_contain_text("rejected")
    expect(rows(page, "Uploads").filter(has_text="prose.txt")).to_contain_text("ready")
    page.evaluate(DROP, ["rows.jsonl", json.dumps({"text": "a row"})])
    expect(rows(page, "On the service").filter(has_text="files/text/rows.jsonl")).to_contain_text(
        "1 document"
    )
    page.get_by_label("as").select_option("Preset")
    choose(page, here("mine.py", b"depth = 2\nnum_iterations = 3\n"))
    rows(page, "On the service").filter(has_text="mine.py").get_by_role("link", name="Use in base").click()
    expect(page.get_by_label("Preset")).to_have_value("mine")
    page = visitor.open("/files")
    choose(page, here("yours.json", b'{"depth": 3, "num_iterations": 4}'))
    rows(page, "On the service").filter(has_text="yours.json").get_by_role("link", name="Use in base").click()
    expect(page.get_by_label("Preset")).to_have_value("yours")
    assert visitor.faults == []


def test_a_lost_connection_is_waited_for_and_nothing_is_sent_twice(
    service: Service, visit: Any, here: Callable[[str, bytes], str]
) -> None:
    page = visit().open("/files")
    offsets: list[int] = []

    def tear(route: Any) -> None:
        offsets.append(int(route.request.headers["upload-offset"]))
        if len(offsets) in (2, 3):
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route(
        "**/files/f*", lambda route: tear(route) if route.request.method == "PATCH" else route.continue_()
    )
    content = conversations(2_500_000)
    choose(page, here("long.jsonl", content))
    expect(rows(page, "Uploads")).to_contain_text("ready")
    file = stored(service)["long.jsonl"]
    assert (service.settings.base_dir / file["path"]).read_bytes() == content
    assert offsets[1] == offsets[2] == offsets[3] > 0


def test_an_upload_is_paused_and_goes_on_also_in_another_window(
    service: Service, visit: Any, here: Callable[[str, bytes], str]
) -> None:
    content = conversations(2_500_000)
    path = here("long.jsonl", content)
    first = visit()
    page = first.open("/files")
    sent: list[Any] = []

    def hold(route: Any) -> None:
        if route.request.method != "PATCH" or not sent:
            sent.append(route) if route.request.method == "PATCH" else None
            route.continue_()
        # what comes after the first part is neither answered nor refused

    page.route("**/files/f*", hold)
    choose(page, path)
    expect(rows(page, "Uploads")).to_contain_text(re.compile(r"[1-9]\d? %"))
    page.get_by_role("button", name="Pause").click()
    expect(rows(page, "Uploads")).to_contain_text("paused at")
    here_already = stored(service)["long.jsonl"]["offset"]
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").click()

    second = visit()
    page = second.open("/files")
    expect(rows(page, "On the service")).to_contain_text("Choose the same file again to go on.")
    offsets: list[int] = []
    page.on("request", lambda r: r.method == "PATCH" and offsets.append(int(r.headers["upload-offset"])))
    choose(page, path)
    expect(rows(page, "Uploads")).to_contain_text("ready")
    assert offsets[0] == here_already
    assert (service.settings.base_dir / stored(service)["long.jsonl"]["path"]).read_bytes() == content


def test_a_cancelled_upload_leaves_nothing(
    service: Service, visit: Any, here: Callable[[str, bytes], str]
) -> None:
    page = visit().open("/files")
    page.route("**/files/f*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    choose(page, here("a.jsonl", GOOD))
    expect(rows(page, "Uploads")).to_contain_text("0 %")
    # the page is waited for, not the service: routes are only passed on while Playwright is asked something
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.get_by_role("button", name="Cancel the upload of a.jsonl").click()
    assert stored(service) == {}
    expect(page.get_by_text("a.jsonl")).to_have_count(0)


def test_what_a_key_may_not_do_is_not_offered(
    service: Service, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = upload(service.client, GOOD, "support.jsonl")
    post_run(service)
    looking = KeyCreate(name="looking", scopes=[Scope.READ])
    sending = KeyCreate(name="sending", scopes=[Scope.READ, Scope.SUBMIT])
    for body, may_send in ((looking, False), (sending, True)):
        page = signed_in(visit(), local.create(service.settings, body))
        expect(rows(page, "On the service")).to_contain_text(file["path"])
        assert page.locator("input[type=file]").count() == int(may_send)
        assert page.get_by_role("link", name="Use in sft").count() == int(may_send)
        assert page.get_by_role("button", name="Delete support.jsonl").count() == 0


def signed_in(visitor: Visitor, key: str) -> Any:
    page = visitor.open("/files")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    return page


@pytest.mark.skipif(not AXE.is_file(), reason="needs web/node_modules: make web")
@pytest.mark.parametrize(
    ("size", "theme"), [(DESKTOP, "dark"), (PHONE, "light")], ids=["dark", "phone light"]
)
def test_uploads_in_all_their_states_are_accessible_and_fit(
    service: Service, visit: Any, here: Callable[[str, bytes], str], size: tuple[int, int], theme: str
) -> None:
    seed.files(service)
    visitor = visit(size, theme)
    page = visitor.open("/files")
    page.route("**/files/f*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    content = conversations(100_000)
    choose(page, here("support.jsonl", content + GOOD))  # the name is another file's
    expect(page.get_by_role("alert")).to_contain_text("take another name")
    choose(page, here("on-its-way-with-a-rather-long-name-that-has-to-be-cut.jsonl", content))
    expect(rows(page, "Uploads").first).to_contain_text("0 %")
    page.get_by_role("button", name="Delete mine.py").click()
    page.evaluate(AXE.read_text())
    assert page.evaluate(SERIOUS) == []
    assert visitor.too_wide() <= 0
