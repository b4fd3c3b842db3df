"""A run records how old the index is whose images it has retrieved, and whether it was compared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pleinair.app.api import draw, find, home
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Ended, payloads, read
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.trace.view import view_of
from pleinair.tools.retrieval import changes
from pleinair.tools.retrieval.changes import IndexAge

PROMPT = "two things"


def age(**options: Any) -> IndexAge | None:
    run = draw(PROMPT, seed=1, **options).run_id
    (end,) = payloads(read(home().events(run)), Ended)
    return end.library


def test_a_run_records_when_its_library_was_walked_through(place: Path) -> None:
    before = time.time()
    first = age()
    assert first and (first.images, first.compared) == (6, True)
    assert before <= first.walked <= time.time()
    assert age(graph="direct") is None
    assert age(overrides={"encoder.salt": "other", "retrieval.method": "lexical"}) is None  # no index


def test_a_library_above_the_limit_is_not_compared(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHECKED", 5)
    last = age()
    assert last and not last.compared
    assert last.summary.endswith("UTC, 6 images; not compared one by one since")
    assert last.summary.startswith(f"index of {time.strftime('%Y-', time.gmtime(last.walked))}")


def test_the_age_is_shown_where_the_library_is_named(place: Path) -> None:
    result = draw(PROMPT, seed=1)
    view = view_of(find(result.run_id), home())
    assert view.library and result.sidecar
    assert json.loads(result.sidecar.read_text("utf-8"))["library"] == view.library.model_dump()
    shown = CliRunner().invoke(app, ["trace", "show", "last"], env={"COLUMNS": "200"})
    assert view.library.summary in shown.stdout
    values = json.loads(CliRunner().invoke(app, ["trace", "show", "last", "--json"]).stdout)
    assert values["library"] == view.library.model_dump()
    client = TestClient(create(Options(workers=0), home()), base_url="http://127.0.0.1:8800")
    assert view.library.summary in client.get(f"/runs/{result.run_id}").text
