"""The threshold "auto" of a library without captions is refused before a run writes or pays anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.chats import Chat
from typer.testing import CliRunner

from pleinair.app.api import draw, home, run_table, submit
from pleinair.app.chat.threads import Threads
from pleinair.app.cli.main import app
from pleinair.app.runs.request import check_settings
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.settings import load
from pleinair.tools.types import BadInput

AUTO = {"retrieval.threshold": "auto"}
REASON = "retrieval.threshold = 'auto': The library's images have all the same caption"


@pytest.fixture
def uncaptioned(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the place of a library whose images all have one caption, with the threshold set."""
    monkeypatch.setenv("PLEINAIR_RETRIEVAL__THRESHOLD", "auto")
    names = [path.name for path in (place / "library").glob("*.png")]
    lines = [json.dumps({"file_name": name, "text": "an image"}) for name in names]
    (place / "library" / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return place


def command(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def served() -> str:
    client = TestClient(create(Options(workers=0), home()), base_url="http://127.0.0.1:8800")
    answer = client.post("/runs", json={"prompt": "two things"})
    assert answer.status_code == 400
    return answer.text


def chatted() -> str:
    with Threads().opened(Chat().thread) as session:
        session.submit("two things")
    return ""


def batched() -> str:
    Path("prompts.txt").write_text("two things\n", encoding="utf-8")
    return command("batch", "prompts.txt", "--out", "out")


@pytest.mark.parametrize(
    "use",
    [
        lambda: command("draw", "two things"),
        lambda: draw("two things"),
        lambda: submit("two things"),
        served,
        chatted,
        batched,
    ],
    ids=["command", "python", "submit", "server", "chat", "batch"],
)
def test_every_interface_refuses_auto_without_captions(uncaptioned: Path, use: Callable[[], Any]) -> None:
    try:
        message = use()
    except BadInput as error:
        message = str(error)
    assert REASON in message and "Set retrieval.threshold to a cosine" in message
    assert not run_table().newest(9)
    assert not (uncaptioned / "effects.log").exists()
    assert not list(uncaptioned.glob("out/*"))


@pytest.mark.parametrize(
    ("graph", "changes"),
    [
        ("direct", {}),
        ("imagerag", {}),
        ("pleinair", {"retrieval.method": "lexical"}),
        ("pleinair", {"retrieval.threshold": 0.2}),
        ("pleinair", {"library.folder": "pocket"}),
    ],
)
def test_where_auto_calibrates_nothing_no_captions_are_needed(
    uncaptioned: Path, graph: str, changes: dict[str, Any]
) -> None:
    check_settings(load(overrides=changes), graph)


def test_two_captions_are_enough_and_the_library_is_read_for_them_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(overrides=AUTO)
    check_settings(settings, "pleinair")
    monkeypatch.setattr("pleinair.app.runs.request.open_library", lambda *_: pytest.fail("read again"))
    check_settings(settings, "pleinair")
