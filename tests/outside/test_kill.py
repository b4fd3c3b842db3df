"""Runs are killed at 60 moments, and end like undisturbed ones."""

from pathlib import Path

import pytest
from support import quick_engines as quick
from support.killed_runs import require_undisturbed

KILLS = 60


def test_killed_runs_end_like_undisturbed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    require_undisturbed(KILLS)
