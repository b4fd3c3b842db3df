"""Progress on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from pleinair.app.cli import terminal
from pleinair.app.cli.terminal import progress_bar


def test_lines_have_what_is_done_and_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    times = iter([0.0, 5.0, 12.0, 13.0, 30.0, 40.0])
    monkeypatch.setattr(terminal, "monotonic", lambda: next(times))
    with progress_bar("Indexing images") as on_index:
        for done in (0, 50, 120, 130, 300, 1000):
            on_index(done, 1000)
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "Indexing images: 120 of 1000, 88 s left",
        "Indexing images: 300 of 1000, 70 s left",
    ]
    assert output.out == ""


def test_a_bar_has_what_is_done_and_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("Indexing images") as on_index:
        on_index(320, 1000)
    assert "320/1000" in capsys.readouterr().err
