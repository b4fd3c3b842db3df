"""Conditions on retrieval that no image meets are refused before a run writes or pays anything."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.chats import Chat
from typer.testing import CliRunner

from pleinair.app.api import draw, find, finish, home, run_table, submit
from pleinair.app.chat.threads import Threads
from pleinair.app.cli.main import app
from pleinair.app.doctor.doctor import examine
from pleinair.app.library.opened import OpenLibrary
from pleinair.app.runs.request import check_settings
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.settings import load
from pleinair.app.trace.view import view_of
from pleinair.tools.retrieval.conditions import EmptySelection
from pleinair.tools.types import BadInput

PROMPT = "two things"
REASON = "retrieval.tags = ['brid']: met by no image; accepted, for example: 'bird' (2 images)"


def describe(place: Path, **facts: Any) -> None:
    """Give the first two of the six images of the library these facts."""
    metadata = place / "library" / "metadata.jsonl"
    lines = [json.loads(line) for line in metadata.read_text("utf-8").splitlines()]
    lines[:2] = [line | facts for line in lines[:2]]
    metadata.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


@pytest.fixture
def mistyped(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the place of a library with two birds, with a mistyped tag set."""
    describe(place, tags=["Bird"])
    monkeypatch.setenv("PLEINAIR_RETRIEVAL__TAGS", '["brid"]')
    return place


def command(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def served() -> str:
    client = TestClient(create(Options(workers=0), home()), base_url="http://127.0.0.1:8800")
    answer = client.post("/runs", json={"prompt": PROMPT})
    assert answer.status_code == 400
    return str(answer.json())


def chatted() -> str:
    with Threads().opened(Chat().thread) as session:
        session.submit(PROMPT)
    return ""


def batched() -> str:
    Path("prompts.txt").write_text(f"{PROMPT}\n", encoding="utf-8")
    return command("batch", "prompts.txt", "--out", "out")


@pytest.mark.parametrize(
    "use",
    [
        lambda: command("draw", PROMPT),
        lambda: command("draw", PROMPT, "--dry-run"),
        lambda: command("library", "search", "picture 3"),
        lambda: command("library", "search", "--like", "3.png"),
        lambda: draw(PROMPT),
        lambda: submit(PROMPT, graph="imagerag"),
        served,
        chatted,
        batched,
    ],
    ids=["command", "dry run", "search", "like", "python", "submit", "server", "chat", "batch"],
)
def test_every_interface_refuses_a_tag_that_no_image_has(mistyped: Path, use: Callable[[], Any]) -> None:
    try:
        message = use()
    except BadInput as error:
        message = str(error)
    assert REASON in message and "Correct a condition, or leave it out" in message
    assert not run_table().newest(9)
    assert not (mistyped / "effects.log").exists()
    assert not list(mistyped.glob("out/*"))


def test_the_error_has_what_is_short_as_fields(place: Path) -> None:
    describe(place, license="CC BY 4.0")
    with pytest.raises(EmptySelection) as caught:
        draw(PROMPT, overrides={"retrieval.licenses": ["CC-BY-NC-4.0"]})
    (unmet,) = caught.value.unmet
    assert (unmet.setting, unmet.value, unmet.images) == ("retrieval.licenses", ("CC-BY-NC-4.0",), 0)
    assert unmet.nearest == {"CC-BY-4.0": 2} and caught.value.field == "retrieval.licenses"


@pytest.mark.parametrize(
    ("graph", "changes"),
    [
        ("direct", {}),
        ("crossmodal", {"crossmodal.rag": False}),
        ("pleinair", {"retrieval.tags": ["BIRD"]}),
        ("pleinair", {"retrieval.tags": ["BIRD"], "library.folder": "library"}),
    ],
)
def test_where_an_image_meets_them_or_none_is_retrieved_nothing_is_refused(
    mistyped: Path, graph: str, changes: dict[str, Any]
) -> None:
    check_settings(load(overrides=changes), graph)


def test_a_size_is_refused_once_the_library_is_indexed_and_named_by_the_run_before(place: Path) -> None:
    large = {"retrieval.min_side": 4000}
    for path in (*(place / "library").iterdir(), place / "library"):
        os.utime(path, ns=(10**18, 10**18))  # changes of the last two seconds may be unnoticed
    view = view_of(find(draw(PROMPT, seed=1, overrides=large).run_id), home())
    assert view.abstentions and all(each.unmet == {"retrieval.min_side": 0} for each in view.abstentions)
    reason = "retrieval.min_side = 4000: met by no image; accepted, for example: '16' (6 images)"
    assert reason in view.abstentions[0].reason
    gaps = CliRunner().invoke(app, ["library", "gaps", "--json"])
    assert json.loads(gaps.stdout)["gaps"] == []  # what the condition excludes is no gap
    with pytest.raises(EmptySelection, match="retrieval.min_side = 4000"):
        draw(PROMPT, seed=1, overrides=large)


def test_a_library_that_loses_its_tag_is_named_by_a_run_that_was_submitted_before(place: Path) -> None:
    describe(place, tags=["bird"])
    run = submit(PROMPT, seed=1, overrides={"retrieval.tags": ["bird"]})
    describe(place, tags=["fish"])
    finish(run)
    assert all(each.unmet == {"retrieval.tags": 0} for each in view_of(run, home()).abstentions)


def test_a_search_and_doctor_count_the_images_that_meet_them(place: Path) -> None:
    describe(place, tags=["bird"])
    chosen = ["--set", 'retrieval.tags=["bird"]']
    result = CliRunner().invoke(app, ["library", "search", "picture 1", *chosen])
    assert "searched 2 of 6 images, which meet the conditions" in result.stdout
    assert "searched" not in CliRunner().invoke(app, ["library", "search", "picture 1"]).stdout
    (library,) = [each for each in examine(None, {"retrieval.tags": ["bird"]}) if each.name == "library"]
    assert library.ok and "2 meet the conditions on retrieval" in library.text
    (library,) = [each for each in examine(None, {"retrieval.tags": ["brid"]}) if each.name == "library"]
    assert not library.ok and "'bird' (2 images)" in library.text
    found = OpenLibrary(load(overrides={"retrieval.tags": ["bird"]}), home()).search("picture 1", 4)
    assert (found.searched, found.images) == (2, 6)
