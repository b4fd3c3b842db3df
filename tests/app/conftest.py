"""Fixture of whole runs: a home, a library, an out folder and quick backends."""

import os
from pathlib import Path

import pytest
from support import quick_engines as quick


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a folder with the home, the library, the out folder and all else that a run uses."""
    for name in [name for name in os.environ if name.startswith("PLEINAIR_")]:
        monkeypatch.delenv(name)
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    monkeypatch.chdir(tmp_path)
    return tmp_path
