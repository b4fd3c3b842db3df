"""Give tests of whole runs their own home, library, out folder and quick engines."""

import os
from pathlib import Path

import pytest
from support import quick_engines as quick


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that holds home, library, out and everything else that a run touches."""
    for name in [name for name in os.environ if name.startswith("PLEINAIR_")]:
        monkeypatch.delenv(name)
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    monkeypatch.chdir(tmp_path)
    return tmp_path
