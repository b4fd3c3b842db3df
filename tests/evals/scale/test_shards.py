"""The benchmark of shares against one process."""

import json
from pathlib import Path

import pytest
from support import quick_engines as quick

from pleinair.evals.__main__ import main


def test_shares_and_one_process_write_the_same_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    options = [
        "--folder",
        str(tmp_path / "library"),
        "--repeat",
        "1",
        "--json",
        str(tmp_path / "figures.json"),
    ]
    main(["scale", "shards", *options])
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert figures["shards"] == 2
    assert all(seconds > 0 for side in ("clock", "processor") for seconds in figures[side].values())
    assert "one process" in capsys.readouterr().out
